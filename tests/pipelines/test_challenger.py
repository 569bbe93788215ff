"""The steps of a retraining on a work tree: data in, checked and versioned, weights to start from, tags."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lstfe.data.coco_video import load_annotations, save_annotations
from lstfe.errors import UserError
from lstfe.params import load_config
from pipelines.challenger import Challenger, _decision_tags
from pipelines.gate import Evidence, Paired, decide
from pipelines.isolated_tree import open_tree
from pipelines.operations_config import GateConfig
from pipelines.retraining import Plan, make_plan
from pipelines.stage import bring_up_to_date

ROOT = Path(__file__).parents[2]
_AUTHOR = {f"GIT_{role}_{part}": "nobody" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


@pytest.fixture
def rendered(project: Path, tiny_raw: Path) -> Path:
    """A committed project whose data set `clips` a stage writes."""
    text = (ROOT / "params.yaml").read_text().replace("name: embedded", "name: clips")
    (project / "params.yaml").write_text(text.replace("settle_seconds: 60.0", "settle_seconds: 0.0"))
    (project / ".gitignore").write_text("/.work/\n/data/incoming/\n/data/raw/?*\n!/data/raw/*.dvc\n")
    command = f"mkdir -p data/raw && cp -R {tiny_raw} data/raw/clips"
    (project / "dvc.yaml").write_text(f"stages: {{make: {{cmd: '{command}', outs: [data/raw/clips]}}}}\n")
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *arguments], cwd=project, check=True, env=os.environ | _AUTHOR)
    return project


def _deliver(root: Path, raw: Path) -> None:
    """Deliver the validation video of a raw data set under another name."""
    annotations = load_annotations(raw / "annotations" / "val.json")
    [video] = annotations.videos
    folder = root / "data" / "incoming" / "clips" / "monday"
    (folder / "videos").mkdir(parents=True)
    shutil.copy(raw / video.file_name, folder / "videos" / "monday_1.mp4")
    renamed = dataclasses.replace(video, name="monday_1", file_name="videos/monday_1.mp4")
    save_annotations(dataclasses.replace(annotations, videos=[renamed]), folder / "monday.json")


def _challenger(root: Path) -> tuple[Plan, Challenger]:
    plan = make_plan(root)
    assert isinstance(plan, Plan)
    open_tree(root, plan.tree_name, _quiet)
    return plan, Challenger(plan, {}, _quiet)


@pytest.mark.slow
def test_a_rendered_data_set_without_deliveries_stays_what_its_stage_makes(rendered: Path) -> None:
    plan, challenger = _challenger(rendered)

    assert challenger.take_data() == {}
    challenger.check_data()

    assert load_config(plan.tree / "params.yaml").data.name == "clips"
    assert not (plan.tree / "data" / "raw" / "clips").exists()  # the stage of the tree comes later


@pytest.mark.slow
def test_a_rendered_data_set_goes_on_under_another_name_once_something_is_delivered(
    rendered: Path, tiny_raw: Path
) -> None:
    bring_up_to_date("make", root=rendered, report=_quiet)
    _deliver(rendered, tiny_raw)
    plan, challenger = _challenger(rendered)

    arrived = challenger.take_data()

    assert arrived == {"monday": ["monday_1"]}
    assert load_config(plan.tree / "params.yaml").data.name == "clips_grown"
    grown = plan.tree / "data" / "raw" / "clips_grown"
    assert "monday_1" in load_annotations(grown / "annotations" / "train.json").video_by_name
    assert (plan.tree / "data" / "raw" / "clips_grown.dvc").is_file()
    cache = rendered / ".dvc" / "cache"
    assert any(cache.rglob("*.dir")), "the tree's data is in the main tree's cache"
    assert not (rendered / "data" / "raw" / "clips_grown").exists()
    assert challenger.take_data() == arrived  # after a kill: nothing is done twice


@pytest.mark.slow
def test_what_somebody_changed_in_a_rendered_data_set_is_new_data_too(rendered: Path) -> None:
    bring_up_to_date("make", root=rendered, report=_quiet)
    before, _ = _challenger(rendered)
    path = rendered / "data" / "raw" / "clips" / "annotations" / "train.json"
    train = load_annotations(path)
    save_annotations(dataclasses.replace(train, annotations=list(train.annotations)[:-1]), path)

    plan, challenger = _challenger(rendered)
    challenger.take_data()

    assert plan.digest != before.digest
    taken = load_annotations(plan.tree / "data" / "raw" / "clips_grown" / "annotations" / "train.json")
    assert len(taken.annotations) == len(train.annotations) - 1


@pytest.mark.slow
def test_data_with_errors_is_not_trained_on(rendered: Path, tiny_raw: Path) -> None:
    bring_up_to_date("make", root=rendered, report=_quiet)
    _deliver(rendered, tiny_raw)  # the val video again, as training data: the check finds the same content
    _, challenger = _challenger(rendered)
    challenger.take_data()

    with pytest.raises(UserError, match="clips_grown has errors, nothing is trained on it"):
        challenger.check_data()
    report = json.loads((rendered / "artifacts" / "checked" / "clips_grown" / "report.json").read_text())
    assert report["cases"]["shared_file"] == 1


def test_a_decision_becomes_tags_that_mlflow_takes() -> None:
    evidence = Evidence(
        has_champion=True,
        ap50=Paired(challenger=0.8, champion=0.7, interval=(0.05, 0.15)),
        by_class={"a&b (c)": Paired(challenger=0.8, champion=0.7)},
        parity_difference=1e-5,
        latency_ms=(10.0, 10.0),
        labels=(("a&b (c)",), ("a&b (c)",)),
    )
    decision = decide(evidence, GateConfig())
    content = {**decision.to_json(), "champion": "3", "evidence": dataclasses.asdict(evidence)}

    assert _decision_tags(content) == {
        "gate.decision": "promote",
        "gate.summary": "accepted: every check passed",
        "gate.champion": "3",
        "gate.parity": "1e-05",
        "gate.ap50": "0.05",
        "gate.class.a_b._c_": "0.1",
        "gate.latency": "1",
        "gate.ap50.interval": "+0.0500 to +0.1500",
    }


def _quiet(line: str) -> None:
    pass
