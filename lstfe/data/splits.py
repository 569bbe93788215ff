"""Which frames of which video train, validate and test: the split options that all importers share.

auto          what the source says: its own splits or lists (SOURCE/splits), or else half
half          the first half of each video's frames trains, the rest tests (the paper's for FL-Drones)
folds:K       whole videos, in K blocks in order of their names; block 1 tests, the others train
folds:K:I     the same with block I, 1..K
by-list:DIR   whole videos, named one a line in DIR/{train,val,test}.txt
none          no split: all.json
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lstfe.data.faults import AnnotationError

SPLITS = ("train", "val", "test")
UNSPLIT = "all"
"""The one part of a data set without a split."""

Parts = dict[str, tuple[str, ...]]
"""Video name -> the splits that share it, in order of time."""

_FOLDS = re.compile(r"folds:([0-9]{1,6})(?::([0-9]{1,6}))?")
_EXPECTED = "expected auto, half, folds:K, folds:K:I, by-list:DIR or none"


def annotation_files(raw: Path) -> dict[str, Path]:
    """Return split -> annotation file of a raw data set, those that are there; AnnotationError for none."""
    paths = {split: raw / "annotations" / f"{split}.json" for split in (*SPLITS, UNSPLIT)}
    present = {split: path for split, path in paths.items() if path.is_file()}
    if not present:
        raise AnnotationError(
            f"{raw / 'annotations'}: holds none of {', '.join(path.name for path in paths.values())}; "
            "render or import a data set first"
        )
    return present


def plan_splits(
    split: str,
    names: Sequence[str],
    *,
    own: Mapping[str, tuple[str, ...]] | None = None,
    lists: Path | None = None,
) -> Parts:
    """Return which splits share which video; for `auto`, `own` or a folder of `lists` is what the source says."""
    if split == "auto" and own is not None:
        return dict(own)
    if split == "auto" and lists is not None and any(lists.glob("*.txt")):
        return read_lists(lists, names)
    if split in ("auto", "half"):
        return dict.fromkeys(names, ("train", "test"))
    if split == "none":
        return dict.fromkeys(names, (UNSPLIT,))
    if split.startswith("by-list:"):
        return read_lists(Path(split.removeprefix("by-list:")), names)
    if split.startswith("folds:"):
        return _choose_fold(split, names)
    raise AnnotationError(f"split {split!r} is unknown, {_EXPECTED}")


def divide_frames(parts: Sequence[str], frames: Sequence[int]) -> dict[str, Sequence[int]]:
    """Return split -> frames: all of them for one split, halves for two."""
    if len(parts) == 1:
        return {parts[0]: frames}
    middle = len(frames) // 2
    return {part: half for part, half in zip(parts, (frames[:middle], frames[middle:]), strict=True) if half}


def read_lists(directory: Path, names: Sequence[str]) -> Parts:
    """Read DIR/{train,val,test}.txt, one video name a line; every name must be among `names`."""
    known = set(names)
    chosen: Parts = {}
    for split in SPLITS:
        path = directory / f"{split}.txt"
        for number, name in enumerate(_read_names(path), start=1):
            if not name:
                continue
            if name in chosen:
                raise AnnotationError(
                    f"{path}:{number}: video {name} is listed already in {chosen[name][0]}.txt, expected once"
                )
            if name not in known:
                raise AnnotationError(
                    f"{path}:{number}: no video {name} in the source, expected one of its {len(known)}"
                )
            chosen[name] = (split,)
    if not chosen:
        raise AnnotationError(
            f"{directory}: lists no video, expected names in train.txt, val.txt or test.txt"
        )
    return chosen


def _read_names(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: not readable as text ({error}), expected video names") from None


def _choose_fold(split: str, names: Sequence[str]) -> Parts:
    matched = _FOLDS.fullmatch(split)
    if matched is None:
        raise AnnotationError(f"split {split!r} is unknown, {_EXPECTED}")
    num_folds, chosen = int(matched[1]), int(matched[2] or 1)
    if not 2 <= num_folds <= len(names):
        raise AnnotationError(f"split {split!r}: expected 2 to {len(names)} folds for {len(names)} videos")
    if not 1 <= chosen <= num_folds:
        raise AnnotationError(f"split {split!r}: fold {chosen}, expected 1 to {num_folds}")
    # In blocks: neighbours in name often show the same scene, which must not both train and test.
    ordered = sorted(names)
    edges = [len(names) * fold // num_folds for fold in range(num_folds + 1)]
    test = set(ordered[edges[chosen - 1] : edges[chosen]])
    return {name: ("test",) if name in test else ("train",) for name in names}
