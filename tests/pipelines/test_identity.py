"""What makes a training the same training."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lstfe.config import Config
from pipelines.identity import (
    code_md5,
    detection_key,
    files_md5,
    lock_md5,
    origin_tags,
    prepared_md5,
    train_key,
)

_MD5 = {"data_md5": "d", "code_md5": "c"}


def test_without_a_lock_file_there_is_no_hash_of_it(project: Path) -> None:
    assert lock_md5() is None


def test_parameters_data_and_code_each_change_the_key() -> None:
    config = Config()
    other = replace(config, train=replace(config.train, lr=0.5))

    keys = {
        train_key(config, **_MD5),
        train_key(other, **_MD5),
        train_key(config, data_md5="e", code_md5="c"),
        train_key(config, data_md5="d", code_md5="e"),
    }

    assert len(keys) == 4


def test_what_makes_the_figures_is_a_part_only_where_they_choose_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scoring = tmp_path / "lstfe" / "evaluation" / "protocols.py"
    scoring.parent.mkdir(parents=True)

    def keys(release: str) -> set[str]:
        config = Config()
        config = replace(config, train=replace(config.train, release=release, validation_frames=60))
        strided = replace(config, evaluate=replace(config.evaluate, frame_stride=3))
        other = replace(config, evaluate=replace(config.evaluate, protocols=("coco",)))
        scoring.write_text("1")
        found = {train_key(item, **_MD5) for item in (config, strided, other)}
        scoring.write_text("2")
        return found | {train_key(config, **_MD5)}

    assert len(keys("last")) == 1
    assert len(keys("val.coco.AP50")) == 4


def test_a_training_that_stopped_at_unreadable_clips_goes_on_under_a_higher_limit() -> None:
    config = Config()
    lenient = replace(config, data=replace(config.data, max_bad_fraction=0.5))

    assert train_key(lenient, **_MD5) == train_key(config, **_MD5)


@pytest.mark.parametrize(
    "changes", [{"max_skipped_updates": 99}, {"keep_checkpoints": 9}, {"num_workers": 0}], ids=str
)
def test_what_changes_no_weight_changes_no_key(changes: dict[str, int]) -> None:
    config = Config()

    assert train_key(replace(config, train=replace(config.train, **changes)), **_MD5) == train_key(
        config, **_MD5
    )


def test_other_weights_to_start_from_are_another_training(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    config = replace(Config(), train=replace(Config().train, warm_start=str(weights)))
    keys = set()
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        keys.add(train_key(config, **_MD5))

    assert len(keys) == 2


def test_neither_other_sections_nor_the_number_of_processes_change_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config()
    key = train_key(config, **_MD5)
    monkeypatch.setenv("LSTFE_NPROC", "8")

    assert train_key(replace(config, deploy=replace(config.deploy, bundle_name="x")), **_MD5) == key


def test_whatever_changes_detections_changes_their_key_and_scoring_does_not() -> None:
    config = Config()
    same = {"device": "cpu", "weights_md5": "w", **_MD5}
    key = detection_key(config, **same)
    changed = [
        replace(config, inference=replace(config.inference, seed=7)),
        replace(config, evaluate=replace(config.evaluate, split="val")),
        replace(config, evaluate=replace(config.evaluate, num_threads=2)),
    ]
    keys = {key, *(detection_key(other, **same) for other in changed)}
    keys |= {detection_key(config, **{**same, name: "x"}) for name in same}
    assert len(keys) == 1 + len(changed) + len(same)
    scoring = replace(config.evaluate, protocols=("voc07",), frame_stride=3, num_pictures=0)
    assert detection_key(replace(config, evaluate=scoring), **same) == key


def test_the_hash_of_prepared_data_is_dvcs_own_where_it_is_known(project: Path) -> None:
    (project / "dvc.lock").write_text(
        "stages: {prepare: {cmd: x, outs: [{path: data/prepared/birds, md5: abc.dir, size: 1}]}}"
    )

    assert prepared_md5("birds") == "abc.dir"


def test_prepared_data_that_dvc_does_not_know_are_hashed_by_content(project: Path) -> None:
    file = project / "data" / "prepared" / "birds" / "report.json"
    file.parent.mkdir(parents=True)
    file.write_text("1")
    before = prepared_md5("birds")
    file.write_text("2")

    assert prepared_md5("birds") != before


def test_code_is_what_dvc_yaml_lists_data_and_artifacts_apart(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {train: {cmd: x, deps: [code, data/x, artifacts/y]}}")
    module = project / "code" / "module.py"
    module.parent.mkdir()
    module.write_text("a = 1")
    before = code_md5("train")
    (project / "data").mkdir()
    (project / "data" / "x").write_text("changed")
    assert code_md5("train") == before

    module.write_text("a = 2")
    assert code_md5("train") != before


def test_bytecode_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("a = 1")
    before = files_md5([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"x")

    assert files_md5([tmp_path]) == before


def test_origin_without_git_holds_only_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert origin_tags() == {}


def test_origin_names_commit_dirt_and_experiment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = {
        f"GIT_{role}_{part}": "nobody" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
    }
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", "first"], check=True, env=os.environ | identity)
    monkeypatch.setenv("DVC_EXP_NAME", "brave-name")
    clean = origin_tags()
    (project / "dvc.yaml").write_text("stages: {a: {cmd: x}}")

    assert len(clean["git.commit"]) == 40
    assert clean["git.dirty"] == "false"
    assert clean["dvc.exp_name"] == "brave-name"
    assert origin_tags()["git.dirty"] == "true"
