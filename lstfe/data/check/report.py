"""The whole check of a raw data set: annotations, then the videos one after the other, then what they share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstfe.config import ModelConfig
from lstfe.data.check.anchors import check_anchors, measure_boxes
from lstfe.data.check.annotations import check_annotations, empty_share
from lstfe.data.check.findings import KINDS, Finding, count_cases, in_order
from lstfe.data.check.footage import Footage, examine_footage
from lstfe.data.check.leakage import check_content, check_splits
from lstfe.data.check.tables import SplitTable, load_tables
from lstfe.data.coco_video import VideoEntry
from lstfe.data.folders import REPORT_NAME
from lstfe.data.footage import ReportProgress

MAX_PICTURES = 24
"""Frames that the page shows of findings."""
_MAX_PICTURES_OF_A_KIND = 4
_MAX_PLACES = 5
"""Places of a kind that the text names."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What came of a check."""

    raw: Path
    findings: list[Finding]
    """Errors first."""
    splits: dict[str, dict[str, Any]]
    """Split -> how much of what it has."""
    boxes: dict[str, Any]
    """Sizes and anchors, see `measure_boxes`."""
    footage: dict[str, Footage]
    """By name of the video; empty for annotations alone."""

    @property
    def num_errors(self) -> int:
        """Cases that must be mended."""
        return sum(finding.count for finding in self.findings if finding.is_error)

    @property
    def num_notes(self) -> int:
        """Cases that should be looked at."""
        return sum(finding.count for finding in self.findings if not finding.is_error)

    def to_json(self) -> str:
        """Return all of it but the pictures."""
        content = {
            "data_set": str(self.raw),
            "errors": self.num_errors,
            "notes": self.num_notes,
            "cases": dict(count_cases(self.findings)),
            "splits": self.splits,
            "boxes": self.boxes,
            "findings": [finding.describe() for finding in self.findings],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def to_text(self) -> str:
        """Return what the terminal shows."""
        lines = [f"{self.raw}: {numbered(self.num_errors, 'error')}, {numbered(self.num_notes, 'note')}"]
        for split, counts in self.splits.items():
            lines.append(f"  {split}: {describe_split(counts)}")
        lines += [f"  {line}" for line in describe_boxes(self.boxes)]
        for title, is_error in (("errors, to be mended", True), ("notes, to be looked at", False)):
            chosen = [finding for finding in self.findings if finding.is_error == is_error]
            lines += [f"{title}:", *_listed(chosen)] if chosen else []
        return "\n".join(lines)


def check_data_set(
    raw: Path, model: ModelConfig, *, report_progress: ReportProgress | None = None
) -> CheckReport:
    """Check a raw data set against itself and the network that is to learn it; nothing is written.

    AnnotationError where there is nothing to check: no annotations, or files that are no COCO-VID.
    """
    tables = load_tables(raw)
    findings = [*check_splits(tables), *(finding for table in tables for finding in check_annotations(table))]
    footage: dict[str, Footage] = {}
    if _has_annotations_only(raw):
        findings.append(Finding("no_footage", "imported with --annotations-only: nothing to train on yet"))
    else:
        footage = _examine_all(raw, tables, findings, report_progress)
        findings += [finding for seen in footage.values() for finding in _check_footage(seen)]
        findings += check_content(footage, _splits_by_video(tables))
    boxes = measure_boxes(tables, model)
    findings += check_anchors(boxes)
    splits = {table.split: _count(table) for table in tables}
    return CheckReport(raw, in_order(findings), splits, boxes, footage)


def numbered(count: int, word: str) -> str:
    """Return '1 word' or '2 words'."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def describe_split(counts: Mapping[str, Any]) -> str:
    """Say in words how much a split has."""
    return "{videos} videos, {frames} frames ({empty_share:.1%} without objects), {boxes} boxes".format(
        **counts
    )


def describe_boxes(boxes: Mapping[str, Any]) -> list[str]:
    """Say in words how large the boxes are and which share of them anchors reach."""
    if not boxes["boxes"]:
        return []
    filled = {bin_px: count for bin_px, count in boxes["by_size_px"].items() if count}
    lines = ["boxes by size (px): " + ", ".join(f"{bin_px}: {count}" for bin_px, count in filled.items())]
    if unknown := boxes["boxes_of_unknown_frame_size"]:
        lines.append(f"{unknown} boxes in frames of unknown size were not held against the anchors")
    if unknown < boxes["boxes"]:
        shares = ", ".join(f"{share:.1%} at IoU {iou}" for iou, share in boxes["reached"].items())
        sizes = ", ".join(f"{size:g}" for size in boxes["anchor_sizes"])
        lines.append(f"reached by an anchor of {sizes} px: {shares}")
    return lines


def _listed(findings: Sequence[Finding]) -> Iterator[str]:
    for kind, count in count_cases(findings).items():
        places = [finding for finding in findings if finding.kind == kind]
        yield f"  {kind}: {numbered(count, 'case')} ({KINDS[kind]})"
        for finding in places[:_MAX_PLACES]:
            more = f" (and {finding.count - 1} more)" if finding.count > 1 else ""
            yield f"    {finding.where + ': ' if finding.where else ''}{finding.message}{more}"
        if len(places) > _MAX_PLACES:
            yield f"    ... and {len(places) - _MAX_PLACES} more places, see the report"


def _examine_all(
    raw: Path,
    tables: Sequence[SplitTable],
    findings: Sequence[Finding],
    report_progress: ReportProgress | None,
) -> dict[str, Footage]:
    wanted = _wanted_frames(findings)
    videos: dict[str, VideoEntry] = {}
    for table in tables:
        for video in table.videos:
            videos.setdefault(video.name, video)
    footage = {}
    for done, (name, video) in enumerate(videos.items(), start=1):
        footage[name] = examine_footage(raw / video.file_name, video, wanted.get(name, ()))
        if report_progress is not None:
            report_progress(done, len(videos), name)
    return footage


def _wanted_frames(findings: Sequence[Finding]) -> dict[str, set[int]]:
    """Choose frames that show findings: a few of each kind, errors first."""
    wanted: dict[str, set[int]] = {}
    per_kind: dict[str, int] = {}
    for finding in in_order(findings):
        room = _MAX_PICTURES_OF_A_KIND - per_kind.get(finding.kind, 0)
        for picture in finding.pictures[:room]:
            if sum(map(len, wanted.values())) < MAX_PICTURES:
                wanted.setdefault(picture.video, set()).add(picture.frame_id)
                per_kind[finding.kind] = per_kind.get(finding.kind, 0) + 1
    return wanted


def _check_footage(seen: Footage) -> Iterator[Finding]:
    video = seen.video
    if seen.fault is not None:
        yield Finding("unreadable_video", seen.fault, video=video.name)
        return
    if seen.num_frames != video.num_frames:
        message = (
            f"has {seen.num_frames} frames, annotated as {video.num_frames}; the two may be of another cut"
        )
        yield Finding("frame_count", message, video=video.name)
    if seen.image_size is not None and seen.image_size != (video.height, video.width):
        height, width = seen.image_size
        message = f"has {width}x{height} pixels, annotated as {video.width}x{video.height}"
        yield Finding("frame_size", message, video=video.name)


def _splits_by_video(tables: Sequence[SplitTable]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for table in tables:
        for name in dict.fromkeys(video.name for video in table.videos):
            splits.setdefault(name, []).append(table.split)
    return splits


def _has_annotations_only(raw: Path) -> bool:
    try:
        content = json.loads((raw / REPORT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # A data set need not come from an import.
    return isinstance(content, dict) and content.get("annotations_only") is True


def _count(table: SplitTable) -> dict[str, Any]:
    return {
        "videos": len(table.videos),
        "frames": len(table.images),
        "empty_share": round(empty_share(table), 4),
        "boxes": len(table.objects),
    }
