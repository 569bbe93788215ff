"""Prepared data sets, opened split by split: annotations/<split>.json, and the frames that all splits share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.frames import FrameStore


def split_path(prepared_dir: Path, split: str) -> Path:
    """Return where a split's annotations lie, if the data set has that split."""
    return prepared_dir / "annotations" / f"{split}.json"


def load_split(
    prepared_dir: Path, split: str, *, label_names: Sequence[str] | None = None
) -> tuple[VideoAnnotations, FrameStore]:
    """Open a split; AnnotationError where it is missing (names the splits there are) or lists no frame.

    `label_names`: those of a detector, which the split's must be in number, name and order.
    """
    path = split_path(prepared_dir, split)
    if not prepared_dir.is_dir():
        raise AnnotationError(
            f"{prepared_dir}: no such prepared data set; `dvc repro prepare` makes it of data/raw/{prepared_dir.name} "
            f"where params.yaml says data.name: {prepared_dir.name}"
        )
    if not path.is_file():
        present = sorted(file.stem for file in path.parent.glob("*.json"))
        raise AnnotationError(
            f"{path}: no such split, found {', '.join(present) or 'none'}; "
            "choose one of these (evaluate.split), or prepare a data set that has it"
        )
    annotations = load_annotations(path)
    if not annotations.images:
        raise AnnotationError(f"{path}: lists no frame; prepare a data set whose split {split} has frames")
    if label_names is not None and list(label_names) != annotations.label_names:
        raise AnnotationError(
            f"{path}: {_difference(annotations.label_names, label_names)}; give the data set that the detector was "
            "trained on, prepare this one with the same categories in the same order, or train on it first"
        )
    return annotations, FrameStore(prepared_dir / "frames")


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """Say how a split's categories differ from the detector's."""
    parts = []
    if missing := [name for name in expected if name not in found]:
        parts.append(f"lacks the detector's {', '.join(missing)}")
    if unknown := [name for name in found if name not in expected]:
        parts.append(f"has {', '.join(unknown)}, unknown to the detector")
    if parts:
        return f"the split {' and '.join(parts)}"
    return f"the order of the categories is {', '.join(found)}, the detector's {', '.join(expected)}"
