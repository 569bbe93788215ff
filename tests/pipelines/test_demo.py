"""The demo's choices; test_whole_way.py runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lstfe.errors import UserError
from pipelines.demo import reproduce_stages, video_to_show


def _annotate(project: Path, split: str, counts: dict[str, int]) -> None:
    """Write a split whose videos have so many annotations."""
    videos = [
        {"id": number, "file_name": f"videos/{name}.mp4"} for number, name in enumerate(counts, start=1)
    ]
    annotations = [
        {"video_id": video["id"]} for video in videos for _ in range(list(counts.values())[video["id"] - 1])
    ]
    folder = project / "data" / "prepared" / "birds" / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.json").write_text(json.dumps({"videos": videos, "annotations": annotations}))


def test_without_prepared_data_there_is_no_video_to_show(project: Path) -> None:
    with pytest.raises(UserError, match="no annotations; run `lstfe reproduce`"):
        video_to_show("birds")


def test_a_video_without_objects_is_shown_where_there_is_no_other(project: Path) -> None:
    _annotate(project, "train", {"empty": 0})

    assert video_to_show("birds") == Path("data/raw/birds/videos/empty.mp4")


def test_the_test_video_with_the_most_objects_is_shown(project: Path) -> None:
    _annotate(project, "train", {"busiest": 9})
    _annotate(project, "test", {"quiet": 1, "busy": 3})

    assert video_to_show("birds") == Path("data/raw/birds/videos/busy.mp4")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_prefect_server_that_is_down_is_said_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(root: Path) -> dict[str, bool]:
        raise RuntimeError("Failed to reach API at http://tracker:4200/api/")

    monkeypatch.setattr("pipelines.flows.reproduce", unreachable)

    with pytest.raises(UserError, match="unset PREFECT_API_URL"):
        reproduce_stages(project)
