"""Checkpoints survive torn files and killed writers; weights refuse another model."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from lstfe.training import checkpoint as checkpoint_file
from lstfe.training.checkpoint import (
    Checkpoint,
    WeightsError,
    checkpoint_path,
    load_newest_checkpoint,
    load_weights,
    restore_rng_state,
    rng_state,
    save_checkpoint,
    save_weights,
)

CPU = torch.device("cpu")


def trained_state(iteration: int) -> Checkpoint:
    """Return the state of a tiny model after one update."""
    torch.manual_seed(iteration)
    model = nn.Conv2d(3, 4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    return Checkpoint(
        iteration=iteration,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        rng=[rng_state(CPU)],
        history=[{"iteration": iteration, "loss": 0.5}],
    )


def test_an_empty_or_absent_folder_holds_no_checkpoint(tmp_path: Path) -> None:
    assert load_newest_checkpoint(tmp_path) is None
    assert load_newest_checkpoint(tmp_path / "absent") is None


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = trained_state(7)
    save_checkpoint(saved, tmp_path / "new")
    loaded = load_newest_checkpoint(tmp_path / "new")
    assert loaded is not None
    assert (loaded.iteration, loaded.history) == (7, saved.history)
    assert all(torch.equal(loaded.model[name], tensor) for name, tensor in saved.model.items())
    for number, state in saved.optimizer["state"].items():
        assert all(torch.equal(loaded.optimizer["state"][number][key], value) for key, value in state.items())
    assert torch.equal(loaded.rng[0]["cpu"], saved.rng[0]["cpu"])


@pytest.mark.parametrize("num_kept", [1, 2, 5])
def test_the_newest_checkpoints_are_kept_and_nothing_else(tmp_path: Path, num_kept: int) -> None:
    (tmp_path / ".part-1-checkpoint_000000003.pt").write_bytes(b"left by a killed writer")
    for iteration in (5, 10, 1000000):
        save_checkpoint(trained_state(iteration), tmp_path, num_kept=num_kept)
    expected = [checkpoint_path(tmp_path, iteration) for iteration in (5, 10, 1000000)]
    assert sorted(tmp_path.iterdir()) == expected[-num_kept:]


@pytest.mark.parametrize("kept_bytes", [0, 100, 0.5, 0.99])
def test_a_torn_newest_checkpoint_falls_back_to_the_one_before_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept_bytes: float
) -> None:
    save_checkpoint(trained_state(5), tmp_path)
    newest = save_checkpoint(trained_state(10), tmp_path)
    content = newest.read_bytes()
    newest.write_bytes(content[: int(kept_bytes if kept_bytes >= 1 else kept_bytes * len(content))])
    with caplog.at_level(logging.WARNING):
        loaded = load_newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.iteration == 5
    assert str(newest) in caplog.text
    assert "falling back" in caplog.text


def test_damaged_tensor_bytes_are_noticed(tmp_path: Path) -> None:
    save_checkpoint(trained_state(5), tmp_path)
    newest = save_checkpoint(trained_state(10), tmp_path)
    weight = trained_state(10).model["weight"].numpy().tobytes()
    content = newest.read_bytes()
    assert weight in content
    newest.write_bytes(content.replace(weight, bytes(len(weight))))
    loaded = load_newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.iteration == 5


class Exploit:
    """Pickles as a call, the way a malicious file would."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code from the file was run')",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"iteration": Exploit()}, checkpoint_path(tmp_path, 3))
    assert load_newest_checkpoint(tmp_path) is None
    with pytest.raises(pickle.UnpicklingError):
        checkpoint_file.load_checkpoint(checkpoint_path(tmp_path, 3))


def die_before_the_rename(directory: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        save_checkpoint(Checkpoint(iteration=10, model={}, optimizer={}), directory)


def test_a_writer_killed_before_the_rename_leaves_the_old_checkpoint_untouched(tmp_path: Path) -> None:
    save_checkpoint(trained_state(5), tmp_path)
    writer = multiprocessing.get_context("fork").Process(target=die_before_the_rename, args=(tmp_path,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".part-*"))) == 1
    loaded = load_newest_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.iteration == 5


@pytest.mark.parametrize("limit", [0, 1000, 4096])
def test_a_failed_write_leaves_no_temporary_file_and_says_why(tmp_path: Path, limit: int) -> None:
    save_checkpoint(trained_state(5), tmp_path)
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, previous[1]))  # as good as a disk that is full
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(trained_state(10), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    assert list(tmp_path.iterdir()) == [checkpoint_path(tmp_path, 5)]


def test_restored_generators_draw_what_they_would_have_drawn() -> None:
    state = rng_state(CPU)
    expected = torch.rand(3)
    torch.rand(100)
    restore_rng_state(state, CPU)
    assert torch.equal(torch.rand(3), expected)


# -------------------------------------------------------------------------------------------- weights


def test_weights_come_back_bit_for_bit_even_from_a_channels_last_model(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "trained" / "weights.safetensors")
    fresh = nn.Conv2d(3, 4, 3)
    load_weights(fresh, tmp_path / "trained" / "weights.safetensors")
    assert torch.equal(fresh.weight, model.weight)
    assert torch.equal(fresh.bias, model.bias)


def test_weights_of_another_model_are_refused_by_the_names_of_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2)), path)
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(2, 2, bias=False))
    before = other[0].weight.clone()
    with pytest.raises(WeightsError) as raised:
        load_weights(other, path)
    message = str(raised.value)
    assert "1 missing: 2.weight" in message
    assert "2 unexpected: 1.bias, 1.weight" in message
    assert "0.weight (4, 3, 3, 3) instead of (8, 3, 3, 3)" in message
    assert "\n" not in message
    assert torch.equal(other[0].weight, before)


def test_absent_and_unreadable_weights_are_one_line_errors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(nn.Linear(2, 2), path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(WeightsError, match="not readable as safetensors"):
        load_weights(nn.Linear(2, 2), path)
