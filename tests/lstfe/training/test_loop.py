"""The loop on the real model: reproducible, resumable, and what the recipe can change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lstfe.config import Config
from lstfe.model.detector import LSTFENet
from lstfe.params import save_config
from lstfe.training.checkpoint import WeightsError, load_newest_checkpoint
from lstfe.training.loop import TrainedModel, train
from lstfe.training.skipped import TrainingError
from lstfe.training.stop import TrainingStopped

from .trainings import (
    WORKER,
    assert_same_bits,
    losses_of,
    stop_after,
    train_quietly,
    with_train,
    worker_environment,
)


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


def test_sound_data_are_reported_as_such(undisturbed: tuple[TrainedModel, Path]) -> None:
    for name in ("skipped_clips", "skipped_updates", "failed_checkpoints"):
        assert {entry[name] for entry in undisturbed[0].history} == {0.0}


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


def test_without_a_validation_there_is_no_best_to_release(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    config = with_train(tiny_config, validation_frames=4, release="val.coco.AP")
    with pytest.raises(TrainingError, match="the data set has no split val"):
        train_quietly(config, tiny_prepared, tmp_path)


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


# -------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGTERM, TrainingStopped), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_ends_the_training_after_its_update_with_the_state_saved(
    undisturbed: tuple[TrainedModel, Path],
    tiny_config: Config,
    tiny_prepared: Path,
    tmp_path: Path,
    number: signal.Signals,
    expected: type[BaseException],
) -> None:
    def log(metrics: dict[str, float], iteration: int) -> None:
        if iteration == 4:
            os.kill(os.getpid(), number)

    arguments = {"prepared_dir": tiny_prepared, "checkpoint_dir": tmp_path, "progress": False}
    with pytest.raises(expected):
        train(with_train(tiny_config, num_workers=1), log=log, validate=None, **arguments)
    checkpoint = load_newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.iteration == 5
    resumed = train_quietly(tiny_config, tiny_prepared, tmp_path)
    assert_same_bits(resumed.model.state_dict(), undisturbed[0].model.state_dict())
    assert losses_of(resumed.history) == losses_of(undisturbed[0].history)


def test_a_signal_during_a_validation_does_not_wait_for_its_end_and_the_validation_is_made_up_for(
    undisturbed: tuple[TrainedModel, Path], tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    validated: list[int] = []

    def validate(model: LSTFENet, iteration: int) -> dict[str, float]:
        if iteration == 4 and 4 not in validated:
            validated.append(iteration)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")
        validated.append(iteration)
        return {"val.coco.AP": 0.5}

    config = with_train(tiny_config, validation_frames=4, validate_every=4)
    arguments = {"prepared_dir": tiny_prepared, "checkpoint_dir": tmp_path, "progress": False}
    with pytest.raises(TrainingStopped):
        train(config, log=lambda *_: None, validate=validate, **arguments)
    trained = train(config, log=lambda *_: None, validate=validate, **arguments)
    assert validated == [3, 4, 4, 8]
    assert [line["iteration"] for line in trained.history if "val.coco.AP" in line] == [3, 4, 8]
    assert_same_bits(trained.model.state_dict(), undisturbed[0].model.state_dict())
