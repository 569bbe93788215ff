"""What fits is taken, the rest is named, and a wrong file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lstfe.training.checkpoint import Checkpoint, WeightsError, save_checkpoint, save_weights
from lstfe.training.warm_start import read_state, warm_start


@pytest.fixture
def trained() -> nn.Module:
    """Build a model of two layers, 8 + 4 numbers."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))


@pytest.fixture
def fresh() -> nn.Module:
    """Build a model whose second layer is another: 8 + 6 numbers."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False))


def saved(model: nn.Module, folder: Path, kind: str) -> Path:
    """Write the model's state in one of the forms that people hand around."""
    state: dict[str, Tensor] = model.state_dict()
    if kind == "safetensors":
        save_weights(model, folder / "weights.safetensors")
        return folder / "weights.safetensors"
    if kind == "own checkpoint":
        return save_checkpoint(Checkpoint(iteration=1, model=state, optimizer={}), folder)
    contents = {
        "state dict": state,
        "in state_dict": {"state_dict": state, "epoch": 3},
        "of DDP": {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    }
    torch.save(contents[kind], folder / "weights.pth")
    return folder / "weights.pth"


@pytest.mark.parametrize("kind", ["safetensors", "own checkpoint", "state dict", "in state_dict", "of DDP"])
def test_whole_weights_are_taken_from_any_kind_of_file(trained: nn.Module, tmp_path: Path, kind: str) -> None:
    start = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
    path = saved(trained, tmp_path, kind)
    report = warm_start(start, path, min_coverage=0.99)
    assert report == f"warm start from {path}: 2 of 2 tensors, 100.0% of the parameters"
    assert all(torch.equal(found, trained.state_dict()[name]) for name, found in start.state_dict().items())


def test_what_does_not_fit_is_named_and_left_as_it_was(
    trained: nn.Module, fresh: nn.Module, tmp_path: Path
) -> None:
    before = fresh[1].weight.clone()
    report = warm_start(fresh, saved(trained, tmp_path, "safetensors"), min_coverage=0.5)
    assert "1 of 2 tensors, 57.1% of the parameters; 1 of another shape: 1.weight" in report
    assert torch.equal(fresh[0].weight, trained[0].weight)
    assert torch.equal(fresh[1].weight, before)


def test_a_file_that_fills_too_little_is_refused_with_the_report(trained: nn.Module, tmp_path: Path) -> None:
    other = nn.ModuleDict({"backbone": nn.Linear(3, 3, bias=False)})
    before = other["backbone"].weight.clone()
    with pytest.raises(WeightsError) as raised:
        warm_start(other, saved(trained, tmp_path, "safetensors"), min_coverage=0.01)
    message = str(raised.value)
    assert "0 of 1 tensors, 0.0% of the parameters; 1 not in the file: backbone.weight" in message
    assert "2 unused: 0.weight, 1.weight" in message
    assert "at least 1% of the parameters (train.warm_start_coverage)" in message
    assert torch.equal(other["backbone"].weight, before)


class Exploit:
    """Pickles as a call, the way a malicious file would."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code from the file was run')",))


def test_absent_unreadable_empty_and_malicious_files_are_one_line_errors(tmp_path: Path) -> None:
    contents = {"text.pth": b"no", "text.safetensors": b"no"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save(Exploit(), tmp_path / "exploit.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    expected = {
        "absent.pth": "no such file",
        "text.pth": "not readable",
        "text.safetensors": "not readable",
        "exploit.pth": "not readable",
        "list.pth": "holds no tensors by name",
    }
    for name, message in expected.items():
        with pytest.raises(WeightsError, match=message) as raised:
            read_state(tmp_path / name)
        assert "\n" not in str(raised.value)
