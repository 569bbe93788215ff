"""What a check finds: errors, which must be mended, and notes, which should be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ERRORS = {
    "unusable_row": "rows that are no COCO-VID",
    "duplicate_id": "ids, names or frames that occur twice",
    "unknown_reference": "rows that point at nothing",
    "unknown_class": "objects of a class that the list of categories lacks",
    "categories_differ": "splits with different lists of categories",
    "video_differs": "videos that two splits describe differently",
    "past_the_end": "annotated frames outside of their video",
    "box_without_area": "boxes without area",
    "box_outside": "boxes outside of their frame",
    "object_twice": "objects that are twice in one frame",
    "no_objects": "splits without any object",
    "unreadable_video": "videos that are missing, unreadable or cut off",
    "frame_count": "videos of another length than annotated",
    "frame_size": "videos of another size than annotated",
    "shared_frame": "frames that two splits share",
    "shared_file": "files with the same content in two splits",
}
"""Kind -> what it is; each must be mended."""
NOTES = {
    "box_over_edge": "boxes that pass the edge of their frame (`prepare` clips them)",
    "track_jump": "objects that jump: a wrong instance_id, or a wrong box",
    "shared_video": "videos that two splits divide in time",
    "repeated_file": "files with the same content in one split",
    "similar_background": "videos of two splits that seem to show the same place",
    "mostly_empty": "splits with hardly any object",
    "anchors_miss": "anchors that do not fit the objects",
    "no_footage": "annotations without videos: nothing of the pictures was checked",
}
"""Kind -> what it is; each should be looked at."""
KINDS = ERRORS | NOTES


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame that shows a finding; `bbox` is (x, y, width, height) in pixels of the video."""

    video: str
    frame_id: int
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault in one place: `message` tells the first of its `count` cases."""

    kind: str
    message: str
    split: str | None = None
    video: str | None = None
    count: int = 1
    pictures: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    @property
    def is_error(self) -> bool:
        """Whether it must be mended."""
        return self.kind in ERRORS

    @property
    def severity(self) -> str:
        """`error` or `note`."""
        return "error" if self.is_error else "note"

    @property
    def where(self) -> str:
        """Split and video, as far as it is about one."""
        return ", ".join(part for part in (self.split, self.video) if part)

    def describe(self) -> dict[str, Any]:
        """Return it as the JSON report has it."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "split": self.split,
            "video": self.video,
            "count": self.count,
            "message": self.message,
            "frames": [
                {"video": p.video, "frame_id": p.frame_id, "bbox": p.bbox and list(p.bbox)}
                for p in self.pictures
            ],
        }


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with errors first, those of a kind together."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: places[finding.kind])


def count_cases(findings: Iterable[Finding]) -> Counter[str]:
    """Return kind -> number of cases."""
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.kind] += finding.count
    return counts
