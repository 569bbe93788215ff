"""The loop on the real model: reproducible, resumable, the same with one process or two."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lstfe.config import Config
from lstfe.data.frames import FrameStore
from lstfe.model.detector import LSTFENet
from lstfe.params import save_config
from lstfe.training.checkpoint import WeightsError, checkpoint_path, load_newest_checkpoint
from lstfe.training.distributed import LAUNCHER_ENVIRONMENT
from lstfe.training.interval import SPEEDS
from lstfe.training.loop import TrainedModel, train
from lstfe.training.skipped import TrainingError

WORKER = Path(__file__).with_name("worker.py")


def with_train(config: Config, **changes: object) -> Config:
    return replace(config, train=replace(config.train, **changes))


def train_quietly(config: Config, prepared_dir: Path, checkpoint_dir: Path) -> TrainedModel:
    return train(
        config,
        prepared_dir=prepared_dir,
        checkpoint_dir=checkpoint_dir,
        log=lambda metrics, iteration: None,
        validate=None,
        progress=False,
    )


def losses_of(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return what does not depend on the clock."""
    return [{name: value for name, value in entry.items() if name not in SPEEDS} for entry in history]


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.fixture(scope="module")
def undisturbed(
    tiny_config: Config, tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainedModel, Path]:
    """Train once without any interruption; the folder holds its last two checkpoints (6 and 8)."""
    checkpoint_dir = tmp_path_factory.mktemp("undisturbed")
    return train_quietly(tiny_config, tiny_prepared, checkpoint_dir), checkpoint_dir


# --------------------------------------------------------------------------------------- one process


def test_the_same_seed_gives_the_same_weights_whatever_ran_before_and_loads_the_data(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    torch.rand(1000)
    again = train_quietly(with_train(tiny_config, num_workers=1), tiny_prepared, tmp_path)
    assert_same_bits(again.model.state_dict(), undisturbed[0].model.state_dict())
    assert losses_of(again.history) == losses_of(undisturbed[0].history)


def test_another_seed_gives_other_weights(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    other = train_quietly(with_train(tiny_config, seed=1), tiny_prepared, tmp_path)
    assert not torch.equal(other.model.fc0.weight, undisturbed[0].model.fc0.weight)


def test_the_trained_model_knows_its_categories_and_is_ready_to_detect(
    undisturbed: tuple[TrainedModel, Path],
) -> None:
    trained, _ = undisturbed
    assert trained.label_names
    assert all(isinstance(name, str) for name in trained.label_names)
    assert not trained.model.training


@pytest.mark.parametrize("still_iterations", [0, 1])
def test_every_trainable_parameter_gets_a_gradient(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path, still_iterations: int
) -> None:
    config = with_train(tiny_config, iterations=2, still_iterations=still_iterations)
    model = train_quietly(config, tiny_prepared, tmp_path).model
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert [name for name, parameter in trainable.items() if parameter.grad is None] == []


def test_a_line_of_metrics_holds_losses_rate_and_speed(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    lines: dict[int, dict[str, float]] = {}
    trained = train(
        with_train(tiny_config, iterations=5, log_every=4),
        prepared_dir=tiny_prepared,
        checkpoint_dir=tmp_path,
        log=lambda metrics, iteration: lines.update({iteration: metrics}),
        validate=None,
        progress=False,
    )
    assert list(lines) == [3, 4, 5]  # a checkpoint, every fourth update, the end
    assert trained.history == [{"iteration": iteration} | metrics for iteration, metrics in lines.items()]
    parts = [value for name, value in lines[5].items() if name.startswith("loss_")]
    assert len(parts) == 4
    assert lines[5]["loss"] == pytest.approx(sum(parts))
    assert lines[5]["images_per_second"] > 0
    assert 0 <= lines[5]["data_wait_fraction"] <= 1
    assert lines[5]["lr"] == pytest.approx(1e-3 / 25e4)


def test_a_line_of_metrics_is_the_mean_over_its_updates(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    config = with_train(tiny_config, log_every=100, checkpoint_every=8)
    (line,) = train_quietly(config, tiny_prepared, tmp_path).history
    each = [entry["loss"] for entry in undisturbed[0].history]
    assert len(each) == 8
    assert line["loss"] == pytest.approx(sum(each) / 8)


@pytest.fixture
def broken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the fifth update is not a number."""
    forward = LSTFENet.forward

    def forward_until_update_five(model: LSTFENet, batch: object) -> dict[str, Tensor]:
        calls.append(1)
        losses = forward(model, batch)
        return losses | {"classification": losses["classification"] * (torch.nan if len(calls) == 5 else 1)}

    calls: list[int] = []
    monkeypatch.setattr(LSTFENet, "forward", forward_until_update_five)


@pytest.mark.usefixtures("broken_once")
def test_an_update_that_is_not_finite_is_skipped_counted_and_dumped_with_its_clips(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    trained = train_quietly(with_train(tiny_config, log_every=2), tiny_prepared, tmp_path)
    counts = {entry["iteration"]: entry["skipped_updates"] for entry in trained.history}
    assert counts == {2: 0, 3: 0, 4: 0, 6: 1, 8: 1}
    assert all(math.isfinite(entry["loss"]) for entry in trained.history)
    assert all(tensor.isfinite().all() for tensor in trained.model.state_dict().values())
    (record,) = [json.loads(line) for line in (tmp_path / "skipped_updates.jsonl").read_text().splitlines()]
    assert (record["iteration"], record["rank"]) == (4, 0)
    assert (record["loss"], record["loss_classification"], record["gradient_norm"]) == ("nan", "nan", "nan")
    assert record["loss_objectness"] > 0
    assert [clip["clip"] for clip in record["clips"]] == [8, 9]
    assert all(len(clip["frames"]) == 5 for clip in record["clips"])


@pytest.mark.usefixtures("broken_once")
def test_past_the_limit_of_skipped_updates_training_stops_and_leaves_sound_checkpoints(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError, match=r"1 updates .* update 5: .*loss_classification nan.*Lower train\.lr"
    ):
        train_quietly(with_train(tiny_config, max_skipped_updates=0), tiny_prepared, tmp_path)
    checkpoint = load_newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.iteration == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint.model.values())


# ----------------------------------------------------------------------------------- unreadable clips


@pytest.fixture(scope="module")
def damaged(tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 2 and 9 of Video_001 each have a wrong byte."""
    damaged = tmp_path_factory.mktemp("damaged") / "prepared"
    shutil.copytree(tiny_prepared, damaged)
    path = damaged / "frames" / "Video_001.zip"
    content = bytearray(path.read_bytes())
    for jpeg in FrameStore(tiny_prepared / "frames").read_jpegs("Video_001", [2, 9]):
        content[content.index(jpeg) + 300] ^= 1
    path.write_bytes(content)
    return damaged


def with_limit(config: Config, max_bad_fraction: float) -> Config:
    config = replace(config, data=replace(config.data, max_bad_fraction=max_bad_fraction))
    return with_train(config, still_iterations=0)


def test_training_goes_on_past_unreadable_clips_counts_and_names_them(
    tiny_config: Config, damaged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_limit(tiny_config, 0.9)
    with caplog.at_level("WARNING", logger="lstfe.training.skipped"):
        trained = train_quietly(config, damaged, tmp_path / "once")
    pattern = re.compile(
        r"clip \d+ is skipped, another takes its place: \S+Video_001\.zip: frame [29] is damaged"
    )
    assert [message for message in caplog.messages if not pattern.match(message)] == []
    counts = [entry["skipped_clips"] for entry in trained.history]
    assert len(counts) == 8
    assert counts == sorted(counts)
    assert counts[-1] == len(caplog.messages) > 1
    again = train_quietly(with_train(config, num_workers=1), damaged, tmp_path / "again")
    assert_same_bits(again.model.state_dict(), trained.model.state_dict())
    assert losses_of(again.history) == losses_of(trained.history)


def test_sound_data_are_reported_as_such(undisturbed: tuple[TrainedModel, Path]) -> None:
    assert {entry["skipped_clips"] for entry in undisturbed[0].history} == {0.0}


def test_too_many_unreadable_clips_stop_the_training_which_goes_on_under_a_higher_limit(
    tiny_config: Config, damaged: Path, tmp_path: Path
) -> None:
    expected = train_quietly(with_limit(tiny_config, 0.9), damaged, tmp_path / "expected")
    first = next(entry["iteration"] for entry in expected.history if entry["skipped_clips"])
    message = (
        rf"train: {int(expected.history[int(first) - 1]['skipped_clips'])} of 32 clips cannot be read, more than "
        r"data\.max_bad_fraction 0\.01 allows\. The last: \S+Video_001\.zip: frame [29] is damaged"
    )
    with pytest.raises(TrainingError, match=message):
        train_quietly(with_limit(tiny_config, 0.01), damaged, tmp_path / "stopped")
    resumed = train_quietly(with_limit(tiny_config, 0.9), damaged, tmp_path / "stopped")
    assert_same_bits(resumed.model.state_dict(), expected.model.state_dict())
    assert losses_of(resumed.history) == losses_of(expected.history)


# ---------------------------------------------------------------------------------------- validation


def test_without_validation_frames_nothing_is_validated(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    validated: list[int] = []
    train(
        with_train(tiny_config, iterations=2, validate_every=1),
        prepared_dir=tiny_prepared,
        checkpoint_dir=tmp_path,
        log=lambda metrics, iteration: None,
        validate=lambda model, iteration: validated.append(iteration) or {},
        progress=False,
    )
    assert validated == []


def test_validation_comes_at_the_first_checkpoint_regularly_and_at_the_end_and_changes_nothing(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    def validate(model: LSTFENet, iteration: int) -> dict[str, float]:
        torch.rand(10)
        return {"val_AP50": iteration / 10, "training": float(model.training)}

    logged: list[tuple[int, dict[str, float]]] = []
    trained = train(
        with_train(tiny_config, validation_frames=4, validate_every=4),
        prepared_dir=tiny_prepared,
        checkpoint_dir=tmp_path,
        log=lambda metrics, iteration: logged.append((iteration, metrics)),
        validate=validate,
        progress=False,
    )
    expected = [(i, {"val_AP50": i / 10, "training": 0.0}) for i in (3, 4, 8)]
    assert [entry for entry in logged if "val_AP50" in entry[1]] == expected
    assert [entry["iteration"] for entry in trained.history if "val_AP50" in entry] == [3, 4, 8]
    assert_same_bits(trained.model.state_dict(), undisturbed[0].model.state_dict())


def test_a_validation_that_was_interrupted_is_made_up_for(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def interrupted(model: LSTFENet, iteration: int) -> dict[str, float]:
        raise Killed

    config = with_train(tiny_config, iterations=3, validation_frames=4)
    arguments = {"prepared_dir": tiny_prepared, "checkpoint_dir": tmp_path, "progress": False}
    with pytest.raises(Killed):
        train(config, log=lambda metrics, iteration: None, validate=interrupted, **arguments)
    logged: list[tuple[dict[str, float], int]] = []
    train(
        config,
        log=lambda metrics, iteration: logged.append((metrics, iteration)),
        validate=lambda model, iteration: {"val_AP50": 0.5},
        **arguments,
    )
    assert logged == [({"val_AP50": 0.5}, 3)]


# ------------------------------------------------------------------------------------------- recipes


def test_the_running_mean_detects_is_saved_and_resumed_and_changes_nothing_about_the_training(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    validated: list[float] = []

    def validate(model: LSTFENet, iteration: int) -> dict[str, float]:
        validated.append(model.fc0.weight.sum().item())
        return {"val.coco.AP": 0.5}

    config = with_train(tiny_config, ema_decay=0.9, validation_frames=4)
    arguments = {
        "prepared_dir": tiny_prepared,
        "log": lambda *_: None,
        "validate": validate,
        "progress": False,
    }
    whole = train(config, checkpoint_dir=tmp_path / "whole", **arguments)
    assert validated[-1] == whole.model.fc0.weight.sum().item()
    newest = load_newest_checkpoint(tmp_path / "whole")
    assert newest is not None
    assert_same_bits(newest.model, undisturbed[0].model.state_dict())
    assert not torch.equal(whole.model.fc0.weight, undisturbed[0].model.fc0.weight)
    stop_after(tmp_path / "whole", tmp_path / "resumed", 6)
    resumed = train(config, checkpoint_dir=tmp_path / "resumed", **arguments)
    assert_same_bits(resumed.model.state_dict(), whole.model.state_dict())


def stop_after(whole: Path, stopped: Path, iteration: int) -> None:
    """Copy the checkpoints as a training that got no further than `iteration` would have left them."""
    shutil.copytree(whole, stopped)
    for path in stopped.glob("checkpoint_*.pt"):
        if path > checkpoint_path(stopped, iteration):
            path.unlink()


@pytest.mark.parametrize("scores", [(0.1, 0.9, 0.5), (0.9, 0.9, 0.9), (0.1, 0.5, 0.9)], ids=str)
def test_the_weights_with_the_highest_validation_figure_can_be_released(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path, scores: tuple[float, ...]
) -> None:
    sums: list[float] = []

    def validate(model: LSTFENet, iteration: int) -> dict[str, float]:
        sums.append(model.fc0.weight.double().sum().item())
        return {"val.coco.AP": scores[len(sums) - 1]}

    config = with_train(tiny_config, validation_frames=4, validate_every=5, release="val.coco.AP")
    log = {"log": lambda *_: None, "validate": validate, "progress": False}
    trained = train(config, prepared_dir=tiny_prepared, checkpoint_dir=tmp_path, **log)
    assert len(sums) == 3
    assert trained.model.fc0.weight.double().sum().item() == sums[scores.index(max(scores))]


def test_a_figure_that_the_validation_does_not_give_is_refused_with_those_it_gives(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    config = with_train(tiny_config, validation_frames=4, release="val.coco.AP51")
    arguments = {"log": lambda *_: None, "validate": lambda *_: {"val.coco.AP": 0.5}, "progress": False}
    with pytest.raises(
        TrainingError, match=r"val\.coco\.AP51: no such figure, the validation gives val\.coco\.AP\."
    ):
        train(config, prepared_dir=tiny_prepared, checkpoint_dir=tmp_path, **arguments)


def test_a_warm_start_begins_with_the_files_weights_and_says_how_many(
    undisturbed: tuple[TrainedModel, Path],
    tiny_config: Config,
    tiny_prepared: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start = undisturbed[1] / "checkpoint_000000008.pt"
    config = with_train(
        tiny_config, iterations=1, still_iterations=0, lr=1e-9, warm_start=str(start), ema_decay=0.5
    )
    with caplog.at_level("INFO", logger="lstfe.training.loop"):
        model = train_quietly(config, tiny_prepared, tmp_path).model
    assert "100.0% of the parameters" in caplog.text
    for name, expected in undisturbed[0].model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], expected, rtol=0, atol=1e-6)


def test_the_log_says_how_the_learning_rate_comes_from_the_batch(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_train(tiny_config, iterations=1, still_iterations=0, batch_size=4, lr=0.001)
    with caplog.at_level("INFO", logger="lstfe.training.loop"):
        train_quietly(config, tiny_prepared, tmp_path)
    expected = "learning rate 0.002 at its peak: train.lr 0.001 x train.batch_size 4 / train.lr_batch_size 2"
    assert expected in caplog.messages


# -------------------------------------------------------------------------------------------- resume


def test_a_finished_training_is_not_repeated(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    trained, checkpoint_dir = undisturbed
    shutil.copytree(checkpoint_dir, tmp_path / "copy")
    shutil.copytree(
        tiny_prepared / "annotations", tmp_path / "prepared" / "annotations"
    )  # no frames to train on
    again = train_quietly(tiny_config, tmp_path / "prepared", tmp_path / "copy")
    assert_same_bits(again.model.state_dict(), trained.model.state_dict())
    assert again.history == trained.history


def test_a_torn_newest_checkpoint_costs_its_interval_and_nothing_else(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    trained, checkpoint_dir = undisturbed
    shutil.copytree(checkpoint_dir, tmp_path / "copy")
    newest = max((tmp_path / "copy").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    again = train_quietly(tiny_config, tiny_prepared, tmp_path / "copy")
    assert_same_bits(again.model.state_dict(), trained.model.state_dict())
    assert again.history[:6] == trained.history[:6]
    assert losses_of(again.history) == losses_of(trained.history)


def test_checkpoints_of_another_model_are_refused_in_one_line(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path
) -> None:
    relation = replace(tiny_config.model.relation, embedding=16)
    other = replace(tiny_config, model=replace(tiny_config.model, relation=relation))
    with pytest.raises(WeightsError, match=r"fc0\.weight .* to train this one"):
        train_quietly(other, tiny_prepared, undisturbed[1])


def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_bits_of_the_undisturbed_one(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    save_config(tiny_config, tmp_path / "config.yaml")
    arguments = [tmp_path / "config.yaml", tiny_prepared, tmp_path / "checkpoints", tmp_path, "5"]
    killed = subprocess.run(
        [sys.executable, WORKER, *map(str, arguments)], env=worker_environment(), check=False
    )
    assert killed.returncode == -9
    checkpoint = load_newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.iteration == 3
    resumed = train_quietly(tiny_config, tiny_prepared, tmp_path / "checkpoints")
    assert_same_bits(resumed.model.state_dict(), undisturbed[0].model.state_dict())
    assert losses_of(resumed.history) == losses_of(undisturbed[0].history)


# ------------------------------------------------------------------------------------ many processes


@pytest.fixture(scope="module")
def by_processes(
    tiny_config: Config, tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, TrainedModel, Path]:
    """Train 20 updates of 4 clips in one process, and in folders `2` and `4` in as many."""
    # SGD: Adam divides by the size of the gradient, so where that is rounding alone, it steps at full length.
    config = with_train(
        tiny_config, iterations=20, batch_size=4, still_iterations=8, optimizer="sgd", lr=1e-2, amp="off"
    )
    config = with_train(config, lr_batch_size=4, ema_decay=0.9)
    folder = tmp_path_factory.mktemp("processes")
    expected = train_quietly(config, tiny_prepared, folder / "one")
    save_config(config, folder / "config.yaml")
    script = WORKER.with_name("processes.py")
    arguments = [folder / "config.yaml", tiny_prepared, folder, "2", "4"]
    subprocess.run(
        [sys.executable, script, *map(str, arguments)], env=worker_environment(), check=True, timeout=240
    )
    return config, expected, folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_many_processes_give_the_losses_and_weights_of_one_with_the_same_global_batch(
    by_processes: tuple[Config, TrainedModel, Path], number: int
) -> None:
    _, expected, folder = by_processes
    history = json.loads((folder / str(number) / "history.json").read_text())
    assert [line["iteration"] for line in history] == list(range(1, 21))
    for line, reference in zip(losses_of(history), losses_of(expected.history), strict=True):
        assert line == pytest.approx(reference, rel=0, abs=1e-4)  # DDP adds the clips in another order
    weights = load_file(folder / str(number) / "weights.safetensors")
    for name, reference in expected.model.state_dict().items():
        torch.testing.assert_close(weights[name], reference, rtol=1e-3, atol=1e-4, msg=name)
    checkpoint = load_newest_checkpoint(folder / str(number) / "checkpoints")
    assert checkpoint is not None
    assert len(checkpoint.rng) == number


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(
    by_processes: tuple[Config, TrainedModel, Path], tiny_prepared: Path, tmp_path: Path
) -> None:
    config, expected, folder = by_processes
    stop_after(folder / "4" / "checkpoints", tmp_path / "checkpoints", 18)
    trained = train_quietly(config, tiny_prepared, tmp_path / "checkpoints")
    for line, reference in zip(losses_of(trained.history), losses_of(expected.history), strict=True):
        assert line == pytest.approx(reference, rel=0, abs=1e-4)


def worker_environment() -> dict[str, str]:
    """Return the environment of a training process: this repository's code, one thread, no GPU."""
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **LAUNCHER_ENVIRONMENT, **threads, "PYTHONPATH": path}
