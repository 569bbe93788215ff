"""Do splits share what they must not? The same frames, the same files, the same places."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from lstfe.data.check.findings import Finding, Picture
from lstfe.data.check.footage import Footage
from lstfe.data.check.tables import SplitTable
from lstfe.data.coco_video import VideoEntry
from lstfe.types import IntArray

MAX_DIFFERENT_BITS = 8
"""Backgrounds whose hashes of 64 bits differ in no more are taken for the same place."""


def check_splits(tables: Sequence[SplitTable]) -> list[Finding]:
    """Return what the annotations of different splits say about each other."""
    return [
        finding
        for first, second in combinations(tables, 2)
        for check in (_categories, _videos)
        for finding in check(first, second)
    ]


def check_content(footage: Mapping[str, Footage], splits: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Return files and backgrounds that come twice; `footage` and `splits` go by the name of a video."""
    return [*_same_files(footage, splits), *_similar_backgrounds(footage, splits)]


def _categories(first: SplitTable, second: SplitTable) -> Iterator[Finding]:
    names = [[category.name for category in table.categories] for table in (first, second)]
    if names[0] != names[1]:
        message = f"categories {names[1]}, expected {names[0]} as in {first.split}.json"
        yield Finding("categories_differ", message, second.split)


def _videos(first: SplitTable, second: SplitTable) -> Iterator[Finding]:
    known = {video.name: (place, video) for place, video in enumerate(first.videos)}
    shared = [(place, video) for place, video in enumerate(second.videos) if video.name in known]
    for place, video in shared:
        other_place, other = known[video.name]
        if _described(video) != _described(other):
            message = f"is {_described(video)}, but {_described(other)} in {first.split}.json"
            yield Finding("video_differs", message, second.split, video.name)
        frames = _frames(first, other_place), _frames(second, place)
        both = np.intersect1d(*frames)
        if len(both):
            message = f"frame {both[0]} belongs to {first.split} and to {second.split}, expected one of them"
            pictures = (Picture(video.name, int(both[0])),)
            yield Finding("shared_frame", message, second.split, video.name, len(both), pictures)
        elif all(map(len, frames)):
            message = (
                f"{first.split} and {second.split} have different frames of it: they show the same scene, "
                "which is as intended for `--split half` and flatters the score otherwise"
            )
            yield Finding("shared_video", message, second.split, video.name)


def _described(video: VideoEntry) -> str:
    return f"{video.file_name}, {video.width}x{video.height}, {video.num_frames} frames"


def _frames(table: SplitTable, place: int) -> IntArray:
    frames: IntArray = table.images[table.image_video == place, 2]
    return frames


def _same_files(footage: Mapping[str, Footage], splits: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    by_hash: dict[str, list[str]] = {}
    for name, seen in footage.items():
        if seen.file_hash is not None:
            by_hash.setdefault(seen.file_hash, []).append(name)
    for names in by_hash.values():
        for name in names[1:]:
            across = set(splits[name]) != set(splits[names[0]])
            message = f"has the content of {names[0]} ({_listed(splits[names[0]])}), expected it once"
            kind = "shared_file" if across else "repeated_file"
            yield Finding(
                kind, message, _listed(splits[name]), name, pictures=_middles(footage, name, names[0])
            )


def _similar_backgrounds(
    footage: Mapping[str, Footage], splits: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Yield for each video the nearest one of another split, where it is near."""
    hashed = [name for name, seen in footage.items() if seen.background_hash is not None]
    hashes = np.array([footage[name].background_hash for name in hashed], np.uint64)
    owners = _numbered([frozenset(splits[name]) for name in hashed])
    files = _numbered([footage[name].file_hash for name in hashed])
    for place in range(1, len(hashed)):
        different = np.bitwise_count(hashes[:place] ^ hashes[place]).astype(np.int64)
        # What is the same file, or in the same splits, is no news here.
        different[(owners[:place] == owners[place]) | (files[:place] == files[place])] = 64
        nearest = int(different.argmin())
        if different[nearest] <= MAX_DIFFERENT_BITS:
            name, other = hashed[place], hashed[nearest]
            message = (
                f"looks like {other} ({_listed(splits[other])}): their backgrounds differ in "
                f"{different[nearest]} of 64 bits; one place must not both train and test"
            )
            pictures = _middles(footage, name, other)
            yield Finding("similar_background", message, _listed(splits[name]), name, pictures=pictures)


def _numbered(values: Sequence[Hashable]) -> IntArray:
    """Return equal numbers for equal values."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([numbers[value] for value in values], np.int64)


def _middles(footage: Mapping[str, Footage], *names: str) -> tuple[Picture, ...]:
    return tuple(Picture(name, footage[name].video.num_frames // 2) for name in names)


def _listed(splits: Sequence[str]) -> str:
    return "+".join(splits)
