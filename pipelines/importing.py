"""`lstfe data import`: from the words of the command line to one of the importers, and what came of it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from lstfe.data.raw import ImportOptions
from pipelines.image_sizes import read_image_size

CHANGES = {
    "boxes_clipped": "boxes clipped to the frame",
    "boxes_dropped": "boxes dropped (outside of the frame or without area)",
    "boxes_ignored": "boxes left out as the source marks them",
    "boxes_of_other_categories": "boxes of other categories left out",
    "boxes_interpolated": "boxes interpolated between key frames",
    "boxes_rotated": "rotated boxes replaced by the upright box around them",
    "shapes_left_out": "shapes other than boxes left out",
    "frames_without_annotation": "frames left out because nothing annotates them",
    "names_changed": "video names changed to serve as names of files",
}
"""Counts of a report that are worth a line."""


def import_data_set(
    data_format: str, source: Path, destination: Path, *, image_size: str | None, **options: Any
) -> str:
    """Import a data set and return what to tell the user; `options` are those of ImportOptions."""
    module = data_format.replace("-", "_")
    importer = getattr(import_module(f"lstfe.data.importers.{module}"), f"import_{module}")
    chosen = ImportOptions(image_size=read_image_size(image_size) if image_size else None, **options)
    report: dict[str, Any] = importer(source, destination, chosen)
    lines = [f"{destination}:"]
    for split, counts in report["splits"].items():
        lines.append("  {}: {videos} videos, {frames} frames, {boxes} boxes".format(split, **counts))
    lines += [f"  {report[name]} {words}" for name, words in CHANGES.items() if report.get(name)]
    lines += [f"  {note}" for note in report.get("notes", [])]
    if chosen.annotations_only:
        lines.append("annotations alone: nothing to prepare or train on without the videos")
    else:
        lines.append(f"version it with: dvc add {destination}")
        lines.append(f"train on it with: dvc exp run -S data.name={destination.name}")
    return "\n".join(lines)
