"""Checks of one split's annotations; no picture is read.

Shapes as in lstfe.data.check.tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lstfe.data.check.findings import Finding, Picture
from lstfe.data.check.tables import SplitTable
from lstfe.data.columns import places_of
from lstfe.types import IntArray

MOSTLY_EMPTY = 0.9
"""A larger share of frames without objects is worth a note."""
JUMP_IN_DIAGONALS = 3.0
"""An object jumps that moves by more than this many diagonals of its box a frame ..."""
JUMP_IN_FRAME = 0.1
"""... and by more than this share of the frame's diagonal in all."""
_ROUNDING_PX = 1e-3
"""Corners may pass the edge by so much."""
_MAX_PICTURES = 2

Flags = npt.NDArray[np.bool_]


def check_annotations(table: SplitTable) -> list[Finding]:
    """Return what is wrong with, or remarkable about, the annotations of one split."""
    checks = (
        _unusable_rows,
        _duplicate_ids,
        _duplicate_frames,
        _unknown_references,
        _unknown_classes,
        _past_the_end,
        _train_frames_past_the_end,
        _boxes,
        _objects_twice,
        _track_jumps,
        _emptiness,
    )
    return [finding for check in checks for finding in check(table)]


def _unusable_rows(table: SplitTable) -> Iterator[Finding]:
    if table.unusable:
        yield Finding("unusable_row", table.unusable[0], table.split, count=len(table.unusable))


def _duplicate_ids(table: SplitTable) -> Iterator[Finding]:
    columns = {
        "videos: id": [video.id for video in table.videos],
        "videos: name": [video.name for video in table.videos],
        "images: id": table.images[:, 0],
        "annotations: id": table.objects[:, 0],
        "categories: id": [category.id for category in table.categories],
    }
    for what, values in columns.items():
        if twice := _repeated(np.asarray(values)):
            message = f"{what} {twice[0]!r} occurs twice, expected each once"
            yield Finding("duplicate_id", message, table.split, count=len(twice))


def _duplicate_frames(table: SplitTable) -> Iterator[Finding]:
    if twice := _repeated(table.images[:, 1:], axis=0):
        message = f"frame {twice[0][1]} of video {twice[0][0]} has two rows in images, expected one"
        yield Finding("duplicate_id", message, table.split, count=len(twice))


def _repeated(values: npt.NDArray[Any], axis: int | None = None) -> list[Any]:
    """Return what occurs more than once among the values, or along an axis of them."""
    unique, counts = np.unique(values, axis=axis, return_counts=True)
    repeated: list[Any] = unique[counts > 1].tolist()
    return repeated


def _unknown_references(table: SplitTable) -> Iterator[Finding]:
    lost_images = np.flatnonzero(table.image_video < 0)
    if len(lost_images):
        image, video, _ = table.images[lost_images[0]].tolist()
        message = f"image {image}: video_id {video} is not in the list of videos"
        yield Finding("unknown_reference", message, table.split, count=len(lost_images))
    lost = np.flatnonzero(table.object_image < 0)
    if len(lost):
        number, image = table.objects[lost[0], :2].tolist()
        message = f"annotation {number}: image_id {image} is not in the list of images"
        yield Finding("unknown_reference", message, table.split, count=len(lost))
    if not len(table.images):
        return
    of_image = table.images[table.object_image, 1]
    crossed = (table.object_image >= 0) & (table.objects[:, 2] != of_image)
    yield from _by_video(
        table,
        "unknown_reference",
        crossed,
        lambda n: f"video_id {table.objects[n, 2]}, but its image belongs to video {of_image[n]}",
    )


def _unknown_classes(table: SplitTable) -> Iterator[Finding]:
    known = np.array([category.id for category in table.categories], np.int64)
    unknown = places_of(table.objects[:, 3], known) < 0
    yield from _by_video(
        table,
        "unknown_class",
        unknown,
        lambda n: f"category_id {table.objects[n, 3]} is not in the list of categories",
    )


def _past_the_end(table: SplitTable) -> Iterator[Finding]:
    lengths = np.array([video.num_frames for video in table.videos] + [0], np.int64)
    frames = table.images[:, 2]
    wrong = (frames < 0) | (frames >= lengths[table.image_video])
    outside = np.flatnonzero(wrong & (table.image_video >= 0))
    for place in np.unique(table.image_video[outside]).tolist():
        cases = frames[outside[table.image_video[outside] == place]]
        video = table.videos[place]
        message = f"frame {cases[0]} is annotated, but the video has {video.num_frames} frames counted from 0"
        yield Finding("past_the_end", message, table.split, video.name, len(cases))


def _train_frames_past_the_end(table: SplitTable) -> Iterator[Finding]:
    for video in table.videos:
        outside = [frame for frame in video.vid_train_frames if not 0 <= frame < video.num_frames]
        if outside:
            message = f"vid_train_frames has {outside[0]}, but the video has {video.num_frames} frames counted from 0"
            yield Finding("past_the_end", message, table.split, video.name, len(outside))


def _boxes(table: SplitTable) -> Iterator[Finding]:
    def bbox(place: int) -> str:
        x, y, width, height = (round(value, 2) for value in table.bboxes[place].tolist())
        size = table.image_sizes[table.object_video[place]]
        return f"bbox x {x}, y {y}, width {width}, height {height} in a frame of {size[1]}x{size[0]}"

    bboxes, video = table.bboxes, table.object_video
    yield from _by_video(
        table,
        "box_without_area",
        ~table.with_area & (video >= 0),
        lambda n: f"{bbox(n)}: no area, expected width and height > 0",
    )
    if not table.videos:
        return
    sizes = table.image_sizes[video]
    # A size of 0 is unknown: then only left and top are edges.
    limits = np.where(sizes > 0, sizes, np.inf)[:, ::-1]
    left_top, right_bottom = bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]
    outside = ((right_bottom <= 0) | (left_top >= limits)).any(axis=1) & table.with_area
    over = ((left_top < -_ROUNDING_PX) | (right_bottom > limits + _ROUNDING_PX)).any(axis=1)
    yield from _by_video(table, "box_outside", outside, lambda n: f"{bbox(n)}: nothing of it is inside")
    yield from _by_video(
        table, "box_over_edge", over & table.with_area & ~outside, lambda n: f"{bbox(n)}: passes the edge"
    )


def _objects_twice(table: SplitTable) -> Iterator[Finding]:
    tracked = np.flatnonzero((table.objects[:, 4] > 0) & (table.object_image >= 0))
    keys = np.column_stack((table.object_image[tracked], table.objects[tracked, 4]))
    _, first = np.unique(keys, axis=0, return_index=True)
    again = np.ones(len(tracked), bool)
    again[first] = False
    twice = np.zeros(len(table.objects), bool)
    twice[tracked[again]] = True
    yield from _by_video(
        table,
        "object_twice",
        twice,
        lambda n: f"instance_id {table.objects[n, 4]} occurs twice, expected each object once a frame",
    )


def _track_jumps(table: SplitTable) -> Iterator[Finding]:
    """Compare each object with itself where it was seen before in the video."""
    tracked = np.flatnonzero((table.objects[:, 4] > 0) & table.with_area)
    order = np.lexsort((table.object_frame[tracked], table.objects[tracked, 4], table.object_video[tracked]))
    tracked = tracked[order]
    before, after = tracked[:-1], tracked[1:]
    same = (table.objects[before, 4] == table.objects[after, 4]) & (
        table.object_video[before] == table.object_video[after]
    )
    before, after = before[same], after[same]
    gaps = table.object_frame[after] - table.object_frame[before]
    before, after, gaps = before[gaps > 0], after[gaps > 0], gaps[gaps > 0]
    moved = np.hypot(*(_centers(table, after) - _centers(table, before)).T)
    diagonals = np.maximum(np.hypot(*table.bboxes[before, 2:].T), np.hypot(*table.bboxes[after, 2:].T))
    frames = np.hypot(*table.image_sizes[table.object_video[after]].T)
    jumps = np.zeros(len(table.objects), bool)
    distances = np.zeros(len(table.objects))
    distances[after] = moved
    jumps[after] = (moved > JUMP_IN_DIAGONALS * diagonals * gaps) & (moved > JUMP_IN_FRAME * frames)
    origins: IntArray = np.zeros(len(table.objects), np.int64)
    origins[after] = before
    yield from _by_video(
        table,
        "track_jump",
        jumps,
        lambda n: (
            f"object {table.objects[n, 4]} is {distances[n]:.0f} px from where it was in "
            f"frame {table.object_frame[origins[n]]}"
        ),
        origins=origins,
    )


def _centers(table: SplitTable, places: IntArray) -> npt.NDArray[np.float64]:
    return table.bboxes[places, :2] + table.bboxes[places, 2:] / 2


def _emptiness(table: SplitTable) -> Iterator[Finding]:
    share = empty_share(table)
    if not len(table.objects):
        yield Finding("no_objects", "no object in any frame: nothing can be learnt or measured", table.split)
    elif share > MOSTLY_EMPTY:
        yield Finding("mostly_empty", f"{share:.1%} of the frames have no object", table.split)


def empty_share(table: SplitTable) -> float:
    """Return the share of annotated frames without any object; 0 for no frames."""
    num_filled = len(np.unique(table.object_image[table.object_image >= 0]))
    return 1 - num_filled / len(table.images) if len(table.images) else 0.0


def _by_video(
    table: SplitTable,
    kind: str,
    flags: Flags,
    describe: Callable[[int], str],
    *,
    origins: IntArray | None = None,
) -> Iterator[Finding]:
    """Yield one finding a video for the flagged objects; `origins` are the places of earlier ones to show too."""
    places = np.flatnonzero(flags)
    for video in np.unique(table.object_video[places]).tolist():
        cases = places[table.object_video[places] == video]
        name = table.videos[video].name if video >= 0 else None
        first = int(cases[0])
        where = f"annotation {table.objects[first, 0]}, frame {table.object_frame[first]}"
        pictures = [] if name is None else [_picture(table, int(n), name) for n in cases[:_MAX_PICTURES]]
        if origins is not None and name is not None:
            pictures = [_picture(table, int(origins[first]), name), pictures[0]]
        yield Finding(kind, f"{where}: {describe(first)}", table.split, name, len(cases), tuple(pictures))


def _picture(table: SplitTable, place: int, video: str) -> Picture:
    bbox: Any = tuple(table.bboxes[place].tolist()) if table.with_area[place] else None
    return Picture(video, int(table.object_frame[place]), bbox)
