"""MLflow remembers; and nothing stops when it cannot."""

from __future__ import annotations

import json
import time
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from lstfe.config import Config
from lstfe.params import save_config
from pipelines import tracking
from pipelines.journal import read_journal
from pipelines.tracking import Run, continue_run, finished_runs, tag_lock, training_run

_DATA_MD5 = "0123456789abcdef0123456789abcdef.dir"


@pytest.fixture
def client(mlflow_store: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{mlflow_store}")


def _train(state_dir: Path, *iterations: int, error: BaseException | None = None) -> Run:
    with training_run(Config(), train_key="key1", state_dir=state_dir, data_md5=_DATA_MD5) as run:
        for iteration in iterations:
            run.log({"loss": 1.0 / iteration}, iteration)
        if error is not None:
            raise error
    return run


def _trained(run: Run, folder: Path) -> Path:
    """Write what a training leaves behind, as far as tracking reads it."""
    folder.mkdir()
    save_config(Config(), folder / "config.yaml")
    (folder / "history.jsonl").write_bytes(run.journal.read_bytes())
    (folder / "weights.safetensors").write_bytes(b"weights")
    machine = {"device": "cpu"}
    record = {"run_id": run.id, "train_key": "key1", "data_md5": _DATA_MD5, "machine": machine}
    (folder / "run.json").write_text(json.dumps(record))
    return folder / "run.json"


def _steps(client: Any, run_id: str | None) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "loss")]


@pytest.mark.usefixtures("mlflow_store")
def test_without_runs_there_is_nothing_to_compare() -> None:
    assert finished_runs() == []


def test_a_run_holds_parameters_curves_origin_and_data(client: Any, tmp_path: Path) -> None:
    run = _train(tmp_path / "state", 10, 20)

    stored = client.get_run(run.id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["model.method"] == "lstfe"
    assert stored.data.params["train.iterations"] == "600"
    assert stored.data.tags["train.key"] == "key1"
    assert stored.data.tags["data.md5"] == _DATA_MD5
    assert stored.inputs.dataset_inputs[0].dataset.digest == _DATA_MD5
    assert _steps(client, run.id) == [10, 20]


def test_later_stages_add_to_the_same_run(client: Any, tmp_path: Path) -> None:
    run = _train(tmp_path / "state", 10)
    run_file = _trained(run, tmp_path / "trained")
    picture = tmp_path / "miss.jpg"
    picture.write_bytes(b"jpeg")

    with continue_run(run_file, stage="evaluate") as continued:
        continued.log_summary({"voc07.AP50": 0.75})
        continued.log_files([picture], "misses")
        continued.log_text("all well", "note.txt")
        continued.set_tags({"deployed": True, "unknown": None})

    stored = client.get_run(run.id)
    assert continued.id == run.id
    assert stored.data.metrics["voc07.AP50"] == 0.75
    assert stored.data.tags["deployed"] == "True"
    assert [file.path for file in client.list_artifacts(run.id, "misses")] == ["misses/miss.jpg"]
    assert finished_runs()[0]["metrics"]["voc07.AP50"] == 0.75


def test_the_evaluated_data_is_noted_once_beside_the_data_of_the_training(
    client: Any, tmp_path: Path
) -> None:
    run = _train(tmp_path / "state", 10)
    run_file = _trained(run, tmp_path / "trained")

    for _ in range(2):
        with continue_run(run_file, stage="evaluate") as continued:
            continued.log_data_set("mine", _DATA_MD5, split="test")

    inputs = client.get_run(run.id).inputs.dataset_inputs
    noted = [(item.dataset.name, item.dataset.digest, item.tags[0].value) for item in inputs]
    assert sorted(noted) == [
        ("embedded-train", _DATA_MD5, "training"),
        ("mine-test", _DATA_MD5, "evaluation"),
    ]


def test_a_folder_is_kept_with_the_run(client: Any, tmp_path: Path) -> None:
    run_file = _trained(_train(tmp_path / "state", 10), tmp_path / "trained")
    folder = tmp_path / "evaluated"
    (folder / "plots").mkdir(parents=True)
    (folder / "report.html").write_text("report")
    (folder / "plots" / "curve.csv").write_text("curve")

    with continue_run(run_file, stage="evaluate") as continued:
        continued.log_folder(folder, "evaluated")

    assert [file.path for file in client.list_artifacts(continued.id, "evaluated")] == [
        "evaluated/plots",
        "evaluated/report.html",
    ]


def test_names_of_classes_that_mlflow_does_not_take_are_mended(client: Any, tmp_path: Path) -> None:
    run_file = _trained(_train(tmp_path / "state", 10), tmp_path / "trained")

    with continue_run(run_file, stage="evaluate") as continued:
        continued.log_summary({"coco.per_class.a&b (c).AP": 0.5, "coco.AP": 0.6})

    assert client.get_run(continued.id).data.metrics["coco.per_class.a_b _c_.AP"] == 0.5


def test_the_final_lock_file_is_tagged_on_the_run(client: Any, tmp_path: Path, project: Path) -> None:
    run = _train(tmp_path / "state", 10)
    (project / "dvc.lock").write_text("final")

    tag_lock(_trained(run, tmp_path / "trained"))

    assert client.get_run(run.id).data.tags["dvc.lock.md5"] == md5(b"final").hexdigest()


def test_files_of_runs_lie_beside_the_store(client: Any, tmp_path: Path, mlflow_store: Path) -> None:
    run = _train(tmp_path / "state", 10)

    assert client.get_run(run.id).info.artifact_uri.startswith((mlflow_store.parent / "mlartifacts").as_uri())


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")],
)
def test_a_run_ends_with_how_its_stage_ended(
    client: Any, tmp_path: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)):
        _train(tmp_path / "state", 10, error=error)

    run_id = json.loads((tmp_path / "state" / "run.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == status
    assert _steps(client, run_id) == [10]


def test_a_resumed_training_goes_on_with_its_run_and_repeats_no_step(client: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "state", 10, 20, error=KeyboardInterrupt())

    resumed = _train(tmp_path / "state", 20, 30)

    assert _steps(client, resumed.id) == [10, 20, 30]
    assert client.get_run(resumed.id).info.status == "FINISHED"
    assert len(client.search_runs(["1"])) == 1


def test_runs_of_the_same_training_left_running_by_a_kill_are_ended(client: Any, tmp_path: Path) -> None:
    killed = _train(tmp_path / "first", 10)
    client.update_run(killed.id, status="RUNNING")

    _train(tmp_path / "second", 10)

    assert client.get_run(killed.id).info.status == "KILLED"


def test_a_run_that_this_store_does_not_know_is_restored_once(client: Any, tmp_path: Path) -> None:
    run = _train(tmp_path / "state", 10, 20)
    run_file = _trained(run, tmp_path / "trained")
    client.delete_run(run.id)

    with continue_run(run_file, stage="evaluate") as evaluated:
        pass
    with continue_run(run_file, stage="deploy") as deployed:
        pass

    stored = client.get_run(evaluated.id)
    assert evaluated.id != run.id
    assert deployed.id == evaluated.id
    assert stored.data.tags["restored_from"] == run.id
    assert stored.data.tags["train.key"] == "key1"
    assert stored.data.params["model.method"] == "lstfe"
    assert _steps(client, evaluated.id) == [10, 20]


def test_with_mlflow_down_training_goes_on_at_full_speed_and_keeps_every_number(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()

    run = _train(tmp_path / "state", *range(1, 201))
    with continue_run(_trained(run, tmp_path / "trained"), stage="evaluate") as continued:
        continued.log_summary({"voc07.AP50": 0.5})
        continued.log_text("note", "note.txt")

    assert time.monotonic() - started < 20
    assert run.id is None
    assert len(read_journal(run.journal)) == 200
    assert sum("MLflow is not there" in message for message in caplog.messages) == 2  # once a stage
    assert finished_runs() == []


def test_what_mlflow_missed_while_it_was_down_reaches_it_with_the_next_stage(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        run_file = _trained(_train(tmp_path / "state", 10, 20), tmp_path / "trained")

    with continue_run(run_file, stage="evaluate") as continued:
        pass

    assert _steps(client, continued.id) == [10, 20]


def test_what_mlflow_missed_at_the_end_of_a_training_reaches_its_run_with_the_next_stage(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as down:
        with training_run(
            Config(), train_key="key1", state_dir=tmp_path / "state", data_md5=_DATA_MD5
        ) as run:
            run.log({"loss": 1.0}, 10)
            run.deliver()
            down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
            run.log({"loss": 0.5, "val.AP": 0.25}, 20)
        run_file = _trained(run, tmp_path / "trained")
    assert _steps(client, run.id) == [10]
    assert client.get_run(run.id).info.status == "RUNNING"

    for stage in ("evaluate", "export"):
        with continue_run(run_file, stage=stage) as continued:
            pass

    stored = client.get_run(run.id)
    assert continued.id == run.id
    assert _steps(client, run.id) == [10, 20]
    assert stored.data.metrics["val.AP"] == 0.25
    assert stored.info.status == "FINISHED"
    assert stored.data.tags["machine.device"] == "cpu"
    assert len(stored.data.tags["weights.md5"]) == 32


def test_a_store_that_comes_back_during_training_gets_everything(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with training_run(Config(), train_key="key1", state_dir=tmp_path / "state", data_md5=_DATA_MD5) as run:
        run.log({"loss": 1.0}, 10)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_store}")
        run.log({"loss": 0.5}, 20)

    assert _steps(client, run.id) == [10, 20]


def test_a_broken_store_costs_a_warning_and_nothing_else(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / ".work").mkdir()
    (project / ".work" / "mlflow.db").write_text("this is no database, and long enough to be refused as one")

    run = _train(tmp_path / "state", 10)

    assert run.id is None
    assert "MLflow is not there" in caplog.text
    assert len(read_journal(run.journal)) == 1


def test_a_bug_of_ours_costs_no_training_and_is_not_taken_for_an_absent_mlflow(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(*arguments: object) -> None:
        raise KeyError("signature")

    monkeypatch.setattr(tracking, "log_model", wrong)
    with training_run(Config(), train_key="key1", state_dir=tmp_path / "state", data_md5=_DATA_MD5) as run:
        for _ in range(2):
            run.log_model(None)  # type: ignore[arg-type]
        run.log({"loss": 1.0}, 10)

    assert "MLflow is not there" not in caplog.text
    (record,) = (record for record in caplog.records if "a bug kept something from MLflow" in record.message)
    assert record.exc_info is not None
    assert _steps(client, run.id) == [10]  # what comes after it is not given up


def test_runs_of_a_sweep_are_nested_below_one_that_only_the_first_makes(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = _train(tmp_path / "alone", 10)
    monkeypatch.setenv("LSTFE_SWEEP", "it's lr")
    first, second = (_train(tmp_path / name, 10) for name in ("first", "second"))

    tags = [client.get_run(run.id).data.tags for run in (first, second)]
    parents = {tag["mlflow.parentRunId"] for tag in tags}
    assert len(parents) == 1
    assert client.get_run(parents.pop()).info.run_name == "it_s lr"
    assert {tag["sweep"] for tag in tags} == {"it_s lr"}
    assert "mlflow.parentRunId" not in client.get_run(alone.id).data.tags
    assert {run["id"] for run in finished_runs()} == {alone.id, first.id, second.id}
