"""What `lstfe data show` writes and says of a raw data set."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lstfe.data import footage
from lstfe.data.coco_video import (
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoAnnotations,
    VideoEntry,
    load_annotations,
    save_annotations,
)
from lstfe.data.faults import AnnotationError
from lstfe.data.show import (
    AnnotatedVideo,
    draw_preview,
    gather_video,
    load_raw_splits,
    nearest_names,
    show_video,
)
from lstfe.data.video import Frame, VideoError, VideoWriter, probe_video, read_video
from lstfe.errors import UserError

SIZE = (64, 96)
NUM_FRAMES = 20
Bbox = tuple[float, float, float, float]
Boxes = dict[int, list[Bbox]]
"""frame_id -> boxes; the n-th of a frame is instance n + 1."""


def _annotate(raw: Path, split: str, videos: dict[str, Boxes], frame_ids: range = range(NUM_FRAMES)) -> None:
    """Write the annotations of one split; `frame_ids` are its frames of every video."""
    entries, images, annotations = [], [], []
    for video_id, (name, boxes) in enumerate(videos.items(), start=1):
        entries.append(VideoEntry(video_id, name, f"videos/{name}.mp4", SIZE[1], SIZE[0], NUM_FRAMES, 25.0))
        for frame_id in frame_ids:
            images.append(ImageEntry(len(images) + 1, video_id, frame_id, SIZE[1], SIZE[0]))
            for instance, bbox in enumerate(boxes.get(frame_id, []), start=1):
                place = len(annotations) + 1
                annotations.append(
                    AnnotationEntry(place, len(images), video_id, 1, bbox, instance_id=instance)
                )
    (raw / "annotations").mkdir(parents=True, exist_ok=True)
    content = VideoAnnotations(entries, images, annotations, [CategoryEntry(1, "drone")])
    save_annotations(content, raw / "annotations" / f"{split}.json")


def _film(raw: Path, name: str, num_frames: int = NUM_FRAMES) -> None:
    (raw / "videos").mkdir(parents=True, exist_ok=True)
    with VideoWriter(raw / "videos" / f"{name}.mp4", 25, SIZE) as video:
        for _ in range(num_frames):
            video.write(np.full((*SIZE, 3), 128, np.uint8))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two videos: `near` with large and `far` with small objects; `empty` has none."""
    folder = tmp_path / "raw"
    near: Boxes = {frame_id: [(10, 10, 30, 30)] for frame_id in range(NUM_FRAMES)}
    far: Boxes = {frame_id: [(10 + frame_id, 10, 6, 4), (50, 40, 5, 5)] for frame_id in range(5, 15)}
    near[3].append((1, 1, 2, 2))  # a single small box makes no video of small objects
    _annotate(folder, "all", {"near": near, "far": far, "empty": {}})
    for name in ("near", "far", "empty"):
        _film(folder, name)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "shown"


def _files(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir()) if output.is_dir() else []


def test_a_video_without_objects_has_a_preview_and_no_sheet(raw: Path, output: Path) -> None:
    output.mkdir()
    (output / "empty_smallest.png").touch()  # of an earlier state of the data
    shown = show_video(raw, "empty", output)
    assert _files(output) == ["empty_preview.mp4"]
    assert shown.sheet is None
    assert "empty: 20 frames, 0 boxes" in shown.message
    assert "none: the video has no objects to show" in shown.message


def test_preview_and_sheet_are_written_and_said(raw: Path, output: Path) -> None:
    shown = show_video(raw, "far", output)
    assert _files(output) == ["far_preview.mp4", "far_smallest.png"]
    info = probe_video(shown.preview)
    assert (info.num_frames, info.width, info.frame_rate) == (NUM_FRAMES, SIZE[1], 25.0)
    assert info.height > SIZE[0]
    assert shown.sheet is not None
    with Image.open(shown.sheet) as sheet:
        assert sheet.width == 6 * 196 + 4  # 20 objects in rows of six
    assert f"{shown.sheet} (20 objects, 4.9 to 5.0 px)" in shown.message
    assert "no --video given" not in shown.message


def test_boxes_are_drawn_on_their_own_frames(raw: Path, output: Path) -> None:
    assert _frames_with_colour(raw, "near", output) == [*range(NUM_FRAMES)]
    assert _frames_with_colour(raw, "far", output) == [*range(5, 15)]
    frame = next(read_video(output / "near_preview.mp4")).astype(int)
    red_over_blue = frame[20:40, :, 0].mean(axis=0) - frame[20:40, :, 2].mean(axis=0)
    assert red_over_blue[6] > 60  # three free pixels beside x = 10, then the line
    assert np.abs(red_over_blue[10:40]).max() < 20


def _frames_with_colour(raw: Path, name: str, output: Path) -> list[int]:
    frames = read_video(show_video(raw, name, output).preview)
    return [i for i, frame in enumerate(frames) if (np.ptp(frame[: SIZE[0]].astype(int), axis=2) > 60).any()]


def test_the_caption_has_the_frame_and_its_split() -> None:
    entry = VideoEntry(1, "v", "videos/v.mp4", SIZE[1], SIZE[0], NUM_FRAMES)
    frame = np.full((*SIZE, 3), 128, np.uint8)
    video = AnnotatedVideo(entry, {0: ["train"], 1: ["train"]})
    captions = [draw_preview(frame, video, frame_id)[SIZE[0] :] for frame_id in (0, 1, 2)]
    assert len({caption.tobytes() for caption in captions}) == 3
    assert len({caption.shape for caption in captions}) == 1
    assert np.array_equal(draw_preview(frame, video, 0)[: SIZE[0]], frame)


def test_without_a_name_the_video_with_the_smallest_objects_is_taken(raw: Path, output: Path) -> None:
    shown = show_video(raw, None, output)
    assert shown.name == "far"
    assert shown.message.startswith("no --video given: far has the smallest objects (median side 4.9 px)")


def test_without_any_object_the_first_video_is_taken(tmp_path: Path, output: Path) -> None:
    _annotate(tmp_path / "raw", "val", {"b": {}, "a": {}})
    _film(tmp_path / "raw", "b")
    assert show_video(tmp_path / "raw", None, output).message.startswith(
        "no --video given: b is the first video, no video has objects"
    )


def test_a_data_set_without_videos_is_refused(tmp_path: Path, output: Path) -> None:
    _annotate(tmp_path / "raw", "all", {})
    with pytest.raises(AnnotationError, match="lists no video"):
        show_video(tmp_path / "raw", None, output)
    with pytest.raises(AnnotationError, match=r"has no video 'a'; the nearest of its 0 videos are: none"):
        show_video(tmp_path / "raw", "a", output)


def test_an_unknown_video_lists_the_nearest_names(raw: Path, output: Path) -> None:
    with pytest.raises(AnnotationError, match=r"has no video 'Nea'; the nearest of its 3 videos are: near, "):
        show_video(raw, "Nea", output)
    assert _files(output) == []


def test_names_are_compared_whatever_their_case() -> None:
    assert nearest_names("x", []) == []
    names = ["Video_001", "video_001", "VIDEO_002", "other", "clip", "more", "rest"]
    assert nearest_names("VIDEO_001", names)[:3] == ["Video_001", "video_001", "VIDEO_002"]
    assert len(nearest_names("VIDEO_001", names)) == 5


def test_every_split_of_a_video_is_shown(tmp_path: Path, output: Path) -> None:
    boxes: Boxes = {frame_id: [(10, 10, 8, 8)] for frame_id in range(NUM_FRAMES)}
    _annotate(tmp_path / "raw", "train", {"v": boxes}, range(10))
    _annotate(tmp_path / "raw", "test", {"v": boxes}, range(8, NUM_FRAMES))
    _film(tmp_path / "raw", "v")
    video = gather_video(load_raw_splits(tmp_path / "raw"), "v", tmp_path / "raw")
    assert video.splits[0] == ["train"]
    assert video.splits[9] == ["train", "test"]  # drawn once
    assert video.splits[10] == ["test"]
    assert [item.split for item in video.all_objects] == ["train"] * 10 + ["test"] * 10
    assert show_video(tmp_path / "raw", "v", output).num_objects == NUM_FRAMES


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rendered_videos_of_each_split_are_shown(tiny_raw: Path, output: Path, split: str) -> None:
    annotations = load_annotations(tiny_raw / "annotations" / f"{split}.json")
    video = annotations.videos[0]
    shown = show_video(tiny_raw, video.name, output)
    assert shown.num_objects == sum(item.video_id == video.id for item in annotations.annotations) > 0
    assert shown.num_frames == 16
    assert len(_files(output)) == 2


def test_a_folder_of_pictures_is_shown_like_a_video(raw: Path, output: Path) -> None:
    folder = raw / "videos" / "far"
    folder.mkdir()
    for index in range(NUM_FRAMES):
        Image.new("RGB", (SIZE[1], SIZE[0]), (128, 128, 128)).save(folder / f"f_{index}.png")
    path = raw / "annotations" / "all.json"
    path.write_text(path.read_text().replace("videos/far.mp4", "videos/far"))
    from_pictures = show_video(raw, "far", output)
    assert probe_video(from_pictures.preview).num_frames == NUM_FRAMES
    path.write_text(path.read_text().replace("videos/far", "videos/far.mp4"))
    from_file = show_video(raw, "far", output)
    assert from_file.on_sheet == from_pictures.on_sheet


def test_boxes_are_clipped_and_those_outside_counted(tmp_path: Path, output: Path) -> None:
    _annotate(tmp_path / "raw", "all", {"v": {0: [(-4, -4, 10, 10), (200, 10, 5, 5)]}})
    _film(tmp_path / "raw", "v")
    shown = show_video(tmp_path / "raw", "v", output)
    assert [item.bbox for item in shown.on_sheet] == [(0, 0, 6, 6)]
    assert "1 boxes lie outside of the frame and are not shown" in shown.message


def test_boxes_past_the_end_of_the_video_are_counted(raw: Path, output: Path) -> None:
    _film(raw, "far", num_frames=8)
    shown = show_video(raw, "far", output)
    assert shown.num_objects == len(shown.on_sheet) == 6
    assert "14 boxes belong to frames past the end of the video, which has 8 frames" in shown.message


def test_a_frame_rate_that_no_player_takes_is_replaced(raw: Path, output: Path) -> None:
    path = raw / "annotations" / "all.json"
    path.write_text(path.read_text().replace('"frame_rate":25.0', '"frame_rate":0.0'))
    assert probe_video(show_video(raw, "far", output).preview).frame_rate == 30.0


def test_one_frame_at_a_time_is_in_memory(raw: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[Frame]] = []

    def read(path: Path) -> Iterator[Frame]:
        for _ in range(NUM_FRAMES):
            frame = np.full((*SIZE, 3), 128, np.uint8)
            seen.append(weakref.ref(frame))
            # The one just made, and the one that its reader has not let go yet.
            assert sum(reference() is not None for reference in seen) <= 2
            yield frame

    monkeypatch.setattr(footage, "read_footage", read)
    assert len(show_video(raw, "far", output).on_sheet) == 20
    assert len(seen) == NUM_FRAMES


def test_without_annotations_the_expected_files_are_named(tmp_path: Path, output: Path) -> None:
    with pytest.raises(AnnotationError, match=r"nowhere/annotations: holds none of train.json, .*all.json"):
        show_video(tmp_path / "nowhere", None, output)


def test_annotations_without_videos_say_so(raw: Path, output: Path) -> None:
    shutil.rmtree(raw / "videos")
    with pytest.raises(VideoError, match=r"far.mp4: no such video; .*--annotations-only"):
        show_video(raw, "far", output)
    assert _files(output) == []


def test_a_damaged_video_leaves_nothing_behind(raw: Path, output: Path) -> None:
    (raw / "videos" / "far.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"far.mp4: cannot be"):
        show_video(raw, "far", output)
    assert _files(output) == []


def test_frames_of_another_size_than_annotated_are_refused(raw: Path, output: Path) -> None:
    path = raw / "annotations" / "all.json"
    content = json.loads(path.read_text())
    content["videos"][1]["width"] = 100
    path.write_text(json.dumps(content))
    with pytest.raises(VideoError, match=r"frame 0 is 96x64 pixels, expected 100x64 as annotated"):
        show_video(raw, "far", output)
    assert _files(output) == []


def test_the_data_set_itself_is_no_place_for_the_output(raw: Path) -> None:
    before = (raw / "videos" / "far.mp4").read_bytes()
    with pytest.raises(UserError, match="lies in the data set, expected another folder"):
        show_video(raw, "far", raw / "videos")
    assert (raw / "videos" / "far.mp4").read_bytes() == before


def test_a_file_in_place_of_the_output_folder_is_one_clear_error(raw: Path, output: Path) -> None:
    output.touch()
    with pytest.raises(UserError, match=r"shown: cannot be used"):
        show_video(raw, "far", output)
