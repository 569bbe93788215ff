"""Promotion and rollback: pointer, bundles, aliases in MLflow and history, also after a kill between them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import BundleError, Manifest
from deploy.files import FileStamp
from deploy.graphs import graphs_of
from lstfe.config import Config
from lstfe.params import save_config
from pipelines import registry
from pipelines.model_versions import ModelVersions, RegistryDown
from pipelines.registry import (
    RegistryError,
    bundle_path,
    champion_pointer,
    enrol,
    history,
    promote,
    read_champion,
    refuse,
    repair,
    rollback,
)
from pipelines.tracked_model import OLD_FOLDER, model_folder


@pytest.fixture
def client(mlflow_store: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{mlflow_store}")


@pytest.fixture
def root(mlflow_store: Path) -> Path:
    return mlflow_store.parents[1]


def _write_bundle(folder: Path, *, weights: bytes, run_id: str) -> Path:
    """Write files that `open_bundle` finds whole; nothing of them can run."""
    folder.mkdir(parents=True)
    save_config(Config(), folder / "config.yaml")
    contents = {"labels.json": b'["drone"]', "weights.safetensors": weights}
    contents |= {f"{graph.name}.onnx": graph.name.encode() for graph in graphs_of(Config())}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = {
        path.name: FileStamp(size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    }
    manifest = Manifest(
        format_version=1,
        name="lstfe",
        model_version=hashlib.sha256(weights).hexdigest()[:12],
        created_from="unknown",
        run_id=run_id,
        method="lstfe",
        preset="small",
        opset=20,
        label_names=("drone",),
        files=files,
    )
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
    return folder


def _run(client: Any) -> str:
    found = client.get_experiment_by_name("lstfe")
    experiment = found.experiment_id if found else client.create_experiment("lstfe")
    return str(client.create_run(experiment).info.run_id)


def _enrol(
    client: Any, root: Path, weights: bytes, *, run_id: str | None = None, is_old: bool = False
) -> str:
    """Train and deploy, so to speak: a run with a bundle as a model, enrolled as a new version."""
    run_id = run_id or _run(client)
    bundle = _write_bundle(root / "made" / weights.decode(), weights=weights, run_id=run_id)
    folder = OLD_FOLDER if is_old else model_folder(hashlib.sha256(weights).hexdigest()[:12])
    client.log_artifacts(run_id, str(bundle), f"{folder}/data/deployed")
    return enrol(root, bundle, run_id=run_id, tags={"train.key": weights.decode()})


def _aliases(client: Any) -> dict[str, str]:
    return {name: str(version) for name, version in client.get_registered_model("lstfe").aliases.items()}


def _actions(root: Path) -> list[tuple[str, str, str | None]]:
    return [(change.action, change.version, change.previous) for change in history(root)]


def test_before_the_first_promotion_there_is_no_champion_and_no_way_back(root: Path) -> None:
    assert read_champion(root) is None
    assert history(root) == []
    assert repair(root) == []
    with pytest.raises(RegistryError, match="no champion before"):
        rollback(root)


def test_an_enrolled_challenger_lies_whole_in_its_place_and_does_not_serve(client: Any, root: Path) -> None:
    version = _enrol(client, root, b"one")

    assert version == "1"
    assert (bundle_path(root, "1") / "weights.safetensors").read_bytes() == b"one"
    assert _aliases(client) == {"challenger": "1"}
    assert read_champion(root) is None


def test_enrolling_the_same_bundle_again_gives_the_same_version(client: Any, root: Path) -> None:
    version = _enrol(client, root, b"one")
    run_id = client.get_model_version("lstfe", version).run_id

    again = enrol(root, root / "made" / "one", run_id=run_id, tags={"train.key": "one"})

    assert again == version
    assert len(client.search_model_versions("name = 'lstfe'")) == 1


def test_a_damaged_bundle_never_becomes_a_version(client: Any, root: Path) -> None:
    bundle = _write_bundle(root / "made" / "one", weights=b"one", run_id="r")
    (bundle / "weights.safetensors").write_bytes(b"two")

    with pytest.raises(BundleError, match="changed since the bundle was written"):
        enrol(root, bundle, run_id="r", tags={})
    assert not (root / ".work" / "serving" / "bundles").exists()


def test_a_promotion_moves_pointer_aliases_and_history(client: Any, root: Path) -> None:
    first, second = (_enrol(client, root, weights) for weights in (b"one", b"two"))

    promote(first, root)
    champion = promote(second, root, reason="better")

    assert champion == read_champion(root)
    assert json.loads(champion_pointer(root).read_text()) == {
        "version": "2",
        "bundle": str(root / ".work" / "serving" / "bundles" / "2"),
        "run_id": client.get_model_version("lstfe", "2").run_id,
        "promoted_at": champion.promoted_at,
    }
    assert champion.promoted_at.endswith("+00:00")
    assert _aliases(client) == {"champion": "2", "previous": "1"}
    assert _actions(root) == [("promote", "1", None), ("promote", "2", "1")]
    assert history(root)[-1].reason == "better"
    assert client.get_model_version("lstfe", "2").tags["promoted_at"] == champion.promoted_at


def test_promoting_the_champion_again_changes_nothing(client: Any, root: Path) -> None:
    version = _enrol(client, root, b"one")

    assert promote(version, root) == promote(version, root)
    assert len(history(root)) == 1


def test_an_unknown_version_is_refused_with_those_there_are(client: Any, root: Path) -> None:
    _enrol(client, root, b"one")

    with pytest.raises(RegistryError, match=r"version '7'.*expected one of 1"):
        promote("7", root)


def test_rollbacks_go_back_one_champion_at_a_time(client: Any, root: Path) -> None:
    for weights in (b"one", b"two", b"three"):
        promote(_enrol(client, root, weights), root)

    assert rollback(root).version == "2"
    assert _aliases(client) == {"champion": "2", "previous": "1"}
    assert rollback(root).version == "1"
    assert _aliases(client) == {"champion": "1"}
    with pytest.raises(RegistryError, match="no champion before version 1"):
        rollback(root)
    assert read_champion(root).version == "1"  # type: ignore[union-attr]


def test_after_a_rollback_the_newer_one_can_be_promoted_again(client: Any, root: Path) -> None:
    for weights in (b"one", b"two"):
        promote(_enrol(client, root, weights), root)
    rollback(root)

    assert promote("2", root).version == "2"
    assert rollback(root).version == "1"


def test_a_refusal_is_noted_once_and_is_no_champion_to_go_back_to(client: Any, root: Path) -> None:
    promote(_enrol(client, root, b"one"), root)
    refused = _enrol(client, root, b"two")

    for _ in range(2):
        refuse(root, refused, reason="worse")

    assert _actions(root) == [("promote", "1", None), ("refuse", "2", "1")]
    with pytest.raises(RegistryError, match="no champion before"):
        rollback(root)


def test_a_rollback_needs_no_mlflow_and_the_aliases_follow_when_it_is_back(
    client: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weights in (b"one", b"two"):
        promote(_enrol(client, root, weights), root)

    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert rollback(root).version == "1"
        with pytest.raises(RegistryDown, match=r"http://127\.0\.0\.1:9"):
            promote("2", root)
        assert read_champion(root).version == "1"  # type: ignore[union-attr]
    assert _aliases(client)["champion"] == "2"

    assert repair(root) == ["MLflow's alias champion: version 1"]
    assert _aliases(client) == {"champion": "1"}


class _Killed(BaseException):
    """What SIGKILL would be, if a process could live to see it."""


@pytest.mark.parametrize(
    ("killed_in", "champion"),
    [("_point", "1"), ("_note", "2"), ("_prune", "2")],
)
def test_a_promotion_killed_at_any_point_is_mended_to_what_the_pointer_says(
    client: Any, root: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str, champion: str
) -> None:
    promote(_enrol(client, root, b"one"), root)
    second = _enrol(client, root, b"two")

    def kill(*arguments: object, **keywords: object) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(registry, killed_in, kill)
        with pytest.raises(_Killed):
            promote(second, root)
    repair(root)

    assert read_champion(root).version == champion  # type: ignore[union-attr]
    assert _aliases(client)["champion"] == champion
    assert registry.champions(history(root))[-1] == champion
    assert promote(second, root).version == "2"
    assert rollback(root).version == "1"


def test_an_enrolment_killed_before_its_bundle_is_in_place_leaves_nothing_behind(
    client: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*arguments: object) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(registry, "_place", kill)
        patch.setattr(registry.shutil, "rmtree", lambda *arguments, **keywords: None)
        with pytest.raises(_Killed):
            _enrol(client, root, b"one")
    folder = root / ".work" / "serving" / "bundles"
    assert [path.suffix for path in folder.iterdir()] == [".partial"]
    run_id = client.get_model_version("lstfe", "1").run_id

    assert enrol(root, root / "made" / "one", run_id=run_id, tags={"train.key": "one"}) == "1"
    assert [path.name for path in folder.iterdir()] == ["1"]


def test_old_bundles_go_but_never_those_of_champion_and_previous(
    client: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "params.yaml").write_text("retrain: {keep_bundles: 2}\n")
    for weights in (b"one", b"two"):
        promote(_enrol(client, root, weights), root)
    for weights in (b"three", b"four", b"five"):
        _enrol(client, root, weights)
    promote("2", root)
    rollback(root)
    promote("3", root)

    present = sorted(path.name for path in (root / ".work" / "serving" / "bundles").iterdir())
    assert present == ["1", "3", "4", "5"]


@pytest.mark.parametrize("is_old", [False, True], ids=["model-VERSION", "model"])
def test_a_bundle_that_was_cleared_away_comes_back_from_mlflow(client: Any, root: Path, is_old: bool) -> None:
    version = _enrol(client, root, b"one", is_old=is_old)
    shutil.rmtree(bundle_path(root, version))

    champion = promote(version, root)

    assert (Path(champion.bundle) / "weights.safetensors").read_bytes() == b"one"


def test_each_version_of_one_run_keeps_its_own_bundle(client: Any, root: Path) -> None:
    run_id = _run(client)
    first, second = (_enrol(client, root, weights, run_id=run_id) for weights in (b"one", b"two"))
    assert first != second
    for version, weights in ((first, b"one"), (second, b"two")):
        shutil.rmtree(bundle_path(root, version))

        champion = promote(version, root)

        assert (Path(champion.bundle) / "weights.safetensors").read_bytes() == weights


def test_a_bundle_that_another_one_replaced_in_mlflow_is_not_taken_for_it(client: Any, root: Path) -> None:
    run_id = _run(client)
    old, new = (_enrol(client, root, weights, run_id=run_id, is_old=True) for weights in (b"one", b"two"))
    promote(old, root)
    promote(new, root)
    shutil.rmtree(bundle_path(root, old))

    for go_back in (lambda: promote(old, root), lambda: rollback(root)):
        with pytest.raises(RegistryError, match=f"version {old}: its bundle is .*, expected "):
            go_back()

    assert not bundle_path(root, old).exists()
    assert read_champion(root).version == new  # type: ignore[union-attr]


def test_another_bundle_in_a_versions_place_is_not_promoted(client: Any, root: Path) -> None:
    versions = [_enrol(client, root, weights) for weights in (b"one", b"two")]
    places = [bundle_path(root, version) for version in versions]
    shutil.rmtree(places[0])
    shutil.copytree(places[1], places[0])

    with pytest.raises(RegistryError, match="expected"):
        promote(versions[0], root)


def test_a_project_that_was_moved_finds_its_champion_again(
    client: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(_enrol(client, root, b"one"), root)
    promoted_at = read_champion(root).promoted_at  # type: ignore[union-attr]
    moved = root.with_name("moved")
    os.chdir(root.parent)
    root.rename(moved)
    monkeypatch.chdir(moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved}/.work/mlflow.db")

    assert any("bundles/1" in mended for mended in repair(moved))

    champion = read_champion(moved)
    assert champion is not None
    assert champion.bundle == str(bundle_path(moved, "1"))
    assert champion.promoted_at == promoted_at


def test_an_unreadable_pointer_says_what_it_should_hold(root: Path) -> None:
    champion_pointer(root).parent.mkdir(parents=True)
    champion_pointer(root).write_text('{"version": 3}')

    with pytest.raises(RegistryError, match="expected version, bundle, run_id and promoted_at"):
        read_champion(root)


def test_a_line_of_the_history_cut_off_by_a_kill_costs_that_line_alone(client: Any, root: Path) -> None:
    promote(_enrol(client, root, b"one"), root)
    path = root / ".work" / "serving" / "history.jsonl"
    with path.open("a") as file:
        file.write('{"time": "2026')

    promote(_enrol(client, root, b"two"), root)

    assert _actions(root) == [("promote", "1", None), ("promote", "2", "1")]


def test_the_registry_tags_versions_and_runs_alike(client: Any, root: Path) -> None:
    version = _enrol(client, root, b"one")

    ModelVersions(root).tag(version, {"gate.decision": "refuse"})

    run_id = client.get_model_version("lstfe", version).run_id
    assert client.get_model_version("lstfe", version).tags["gate.decision"] == "refuse"
    assert client.get_run(run_id).data.tags["gate.decision"] == "refuse"
    [found] = ModelVersions(root).all()
    assert (found.version, found.run_id, found.aliases) == ("1", run_id, ("challenger",))
