"""New data: when there is some, what a delivery may look like, and what a data set is after it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lstfe.config import RenderConfig
from lstfe.data.check.report import check_data_set
from lstfe.data.coco_video import VideoAnnotations, load_annotations, save_annotations
from lstfe.data.rendering.renderer import render_data_set
from pipelines.arrivals import (
    Arrival,
    ArrivalError,
    data_state,
    detect_format,
    find_arrivals,
    grow,
    is_as_made,
    is_settled,
    merged,
)

_NAME = "clips"


@pytest.fixture(scope="module")
def other_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another raw data set of two videos whose names the first one does not have."""
    made = tmp_path_factory.mktemp("other") / "made"
    render_data_set(
        RenderConfig(
            seed=99,
            num_train_videos=1,
            num_val_videos=1,
            num_test_videos=1,
            num_frames=6,
            image_size=(64, 96),
        ),
        made,
    )
    return made


@pytest.fixture
def mine(project: Path, tiny_raw: Path) -> Path:
    """A project whose data set `clips` nobody's stage writes."""
    shutil.copytree(tiny_raw, project / "data" / "raw" / _NAME)
    return project


def _deliver(raw: Path, folder: Path, name: str, *, split: str = "train") -> VideoAnnotations:
    """Write one video of `raw` with its annotations as a COCO-VID delivery, under another name."""
    annotations = load_annotations(raw / "annotations" / f"{split}.json")
    [video] = annotations.videos
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    shutil.copy(raw / video.file_name, folder / "videos" / f"{name}.mp4")
    renamed = dataclasses.replace(video, name=name, file_name=f"videos/{name}.mp4")
    delivered = dataclasses.replace(annotations, videos=[renamed])
    save_annotations(delivered, folder / "annotations" / f"{name}.json")
    return delivered


def _tell(root: Path) -> str:
    return data_state(root, _NAME).digest


def test_a_project_without_data_has_an_empty_state(project: Path) -> None:
    state = data_state(project, _NAME)

    assert (state.digest, state.num_files) == ("", 0)
    assert is_settled(state, 60.0)
    assert find_arrivals(project, _NAME) == []


def test_the_state_changes_with_contents_and_names_and_with_nothing_else(mine: Path) -> None:
    first = _tell(mine)
    text = mine / "data" / "raw" / _NAME / "annotations" / "train.json"
    content = text.read_bytes()

    os.utime(text)
    assert _tell(mine) == first

    text.write_bytes(content + b"\n")
    changed = _tell(mine)
    text.write_bytes(content)
    assert (changed != first, _tell(mine)) == (True, first)

    (mine / "data" / "raw" / _NAME / "videos" / ".partial.mp4").touch()
    assert _tell(mine) == first
    (mine / "data" / "raw" / _NAME / "videos" / "new.mp4").touch()
    assert _tell(mine) != first


def test_a_delivery_changes_the_state(mine: Path, other_raw: Path) -> None:
    first = _tell(mine)

    _deliver(other_raw, mine / "data" / "incoming" / _NAME / "monday", "monday_1")

    assert _tell(mine) != first


def test_data_that_was_just_changed_may_still_be_on_its_way(mine: Path) -> None:
    state = data_state(mine, _NAME)

    assert not is_settled(state, 60.0)
    assert is_settled(state, 0.0)
    assert is_settled(dataclasses.replace(state, newest=time.time() - 61), 60.0)


def test_what_a_stage_writes_counts_only_when_somebody_changed_it(toy: Path) -> None:
    (toy / "dvc.yaml").write_text(
        "stages:\n  render:\n    cmd: mkdir -p data/raw/clips && echo made > data/raw/clips/a.txt\n"
        "    outs: [data/raw/clips]\n"
    )
    from pipelines.stage import bring_up_to_date

    before = _tell(toy)
    bring_up_to_date("render", root=toy, report=lambda line: None)

    assert is_as_made(toy, _NAME)
    assert _tell(toy) == before
    (toy / "data" / "raw" / "clips" / "a.txt").write_text("mine")
    assert not is_as_made(toy, _NAME)
    assert _tell(toy) != before


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["annotations/train.json", "videos/a.mp4"], "raw"),
        (["train.json", "a.mp4"], "coco-video"),
        (["anything.json", "a.mp4"], "coco-video"),
        (["seq/gt/gt.txt", "seq/img1/1.jpg"], "mot"),
        (["Annotations/VID/train/a/000000.xml"], "imagenet-vid"),
        (["fl_drones/Video_1.txt", "videos/Video_1.mp4"], "fl-drones"),
    ],
)
def test_the_layout_of_a_delivery_is_told_by_its_files(
    tmp_path: Path, files: list[str], expected: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert detect_format(tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("<annotations><version>1.1</version>", "cvat"), ("<annotation><folder>", "voc")],
)
def test_the_two_kinds_of_xml_are_told_by_their_first_element(
    tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "a.xml").write_text(f'<?xml version="1.0"?>\n{text}')

    assert detect_format(tmp_path) == expected


def test_videos_without_annotations_are_no_delivery(mine: Path) -> None:
    folder = mine / "data" / "incoming" / _NAME / "monday"
    folder.mkdir(parents=True)
    (folder / "a.mp4").touch()

    with pytest.raises(ArrivalError, match=r"monday: no annotations that are known"):
        find_arrivals(mine, _NAME)


def test_a_loose_file_is_refused_with_where_it_belongs(mine: Path) -> None:
    folder = mine / "data" / "incoming" / _NAME
    folder.mkdir(parents=True)
    (folder / "a.mp4").touch()

    with pytest.raises(ArrivalError, match="a loose file, expected a folder a delivery"):
        find_arrivals(mine, _NAME)


def test_without_deliveries_the_data_set_is_copied_as_it_is(mine: Path, tmp_path: Path) -> None:
    source = mine / "data" / "raw" / _NAME

    assert grow(source, [], tmp_path / "grown") == {}

    for path in source.rglob("*"):
        if path.is_file():
            assert (tmp_path / "grown" / path.relative_to(source)).read_bytes() == path.read_bytes()


def test_a_video_dropped_beside_the_others_joins_the_training_and_no_test(
    mine: Path, other_raw: Path, tmp_path: Path
) -> None:
    source = mine / "data" / "raw" / _NAME
    before = {
        split: load_annotations(source / "annotations" / f"{split}.json") for split in ("train", "test")
    }
    delivered = _deliver(other_raw, source, "monday_1")
    files = sorted(path.name for path in source.rglob("*"))

    arrivals = find_arrivals(mine, _NAME)
    taken = grow(source, arrivals, tmp_path / "grown")

    assert taken == {"monday_1.json": ["monday_1"]}
    train = load_annotations(tmp_path / "grown" / "annotations" / "train.json")
    assert [video.name for video in train.videos] == [*(v.name for v in before["train"].videos), "monday_1"]
    assert len(train.annotations) == len(before["train"].annotations) + len(delivered.annotations)
    for frame_id in delivered.frame_ids("monday_1"):
        expected, labels = delivered.boxes("monday_1", frame_id)
        found, found_labels = train.boxes("monday_1", frame_id)
        assert (found.tolist(), found_labels.tolist()) == (expected.tolist(), labels.tolist())
    same = (tmp_path / "grown" / "annotations" / "test.json").read_bytes()
    assert same == (source / "annotations" / "test.json").read_bytes()
    assert not (tmp_path / "grown" / "annotations" / "monday_1.json").exists()
    assert json.loads((tmp_path / "grown" / "report.json").read_text())["arrived"] == taken
    assert sorted(path.name for path in source.rglob("*")) == files  # the user's own stays as it was


def test_the_grown_data_set_passes_the_check(mine: Path, other_raw: Path, tmp_path: Path) -> None:
    from lstfe.config import ModelConfig

    source = mine / "data" / "raw" / _NAME
    _deliver(other_raw, mine / "data" / "incoming" / _NAME / "monday", "monday_1")
    _deliver(other_raw, mine / "data" / "incoming" / _NAME / "tuesday", "tuesday_1", split="val")

    grow(source, find_arrivals(mine, _NAME), tmp_path / "grown")

    report = check_data_set(tmp_path / "grown", ModelConfig())
    assert [finding for finding in report.findings if finding.is_error] == []
    assert report.splits["train"]["videos"] == 4


def test_deliveries_of_other_formats_and_of_the_raw_form_are_taken_in(
    mine: Path, other_raw: Path, tmp_path: Path
) -> None:
    incoming = mine / "data" / "incoming" / _NAME
    _deliver(other_raw, incoming / "a_raw", "first")
    (incoming / "a_raw" / "annotations" / "first.json").rename(
        incoming / "a_raw" / "annotations" / "all.json"
    )
    texts = incoming / "b_texts"
    (texts / "videos").mkdir(parents=True)
    shutil.copy(incoming / "a_raw" / "videos" / "first.mp4", texts / "videos" / "second.mp4")
    (texts / "second.txt").write_text("0,1,10,10,30,30\n")

    arrivals = find_arrivals(mine, _NAME)
    taken = grow(mine / "data" / "raw" / _NAME, arrivals, tmp_path / "grown")

    assert [arrival.format for arrival in arrivals] == ["raw", "fl-drones"]
    assert taken == {"a_raw": ["first"], "b_texts": ["second"]}


def test_a_video_that_is_there_already_is_left_out(mine: Path, tmp_path: Path) -> None:
    source = mine / "data" / "raw" / _NAME
    train = load_annotations(source / "annotations" / "train.json")
    again = source / "annotations" / "again.json"
    save_annotations(train, again)

    taken = grow(source, [Arrival(again, "coco-video")], tmp_path / "grown")

    assert taken == {"again.json": []}
    assert load_annotations(tmp_path / "grown" / "annotations" / "train.json").videos == train.videos


def test_another_video_under_a_name_that_is_taken_is_refused(
    mine: Path, other_raw: Path, tmp_path: Path
) -> None:
    name = load_annotations(mine / "data" / "raw" / _NAME / "annotations" / "test.json").videos[0].name
    _deliver(other_raw, mine / "data" / "incoming" / _NAME / "monday", name)

    with pytest.raises(ArrivalError, match="is another one than the data set has under that name"):
        grow(mine / "data" / "raw" / _NAME, find_arrivals(mine, _NAME), tmp_path / "grown")


def test_a_category_that_the_data_set_lacks_is_refused(tiny_raw: Path, other_raw: Path) -> None:
    base, added = (load_annotations(raw / "annotations" / "train.json") for raw in (tiny_raw, other_raw))
    category = dataclasses.replace(added.categories[0], name="kite")

    with pytest.raises(ArrivalError, match="category 'kite', expected one of drone"):
        merged(base, dataclasses.replace(added, categories=[category]), where="monday")


def test_merged_annotations_are_valid_and_keep_every_object_with_its_frame(
    tiny_raw: Path, other_raw: Path, tmp_path: Path
) -> None:
    base, added = (load_annotations(raw / "annotations" / "train.json") for raw in (tiny_raw, other_raw))
    base = dataclasses.replace(base, corner_pixels_inside=True)
    video = dataclasses.replace(added.videos[0], name="new")

    both = merged(base, dataclasses.replace(added, videos=[video]), where="monday")
    save_annotations(both, tmp_path / "both.json")
    again = load_annotations(tmp_path / "both.json")

    assert again.corner_pixels_inside
    assert len({image.id for image in again.images}) == len(base.images) + len(added.images)
    assert again.num_objects("new").tolist() == added.num_objects(added.videos[0].name).tolist()
    for name in base.video_by_name:
        assert again.num_objects(name).tolist() == base.num_objects(name).tolist()
