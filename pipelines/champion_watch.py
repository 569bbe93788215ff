"""`evaluate_champion`: does the footage that comes in still look like what the champion was trained and tested on?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lstfe.params import load_config
from lstfe.whole_files import new_file
from pipelines.arrivals import INCOMING
from pipelines.drift import Comparison, Verdict, compare, load_reference, to_json
from pipelines.operations_config import load_operations
from pipelines.paths import PARAMS
from pipelines.registry import read_champion, reference_path

REPORTS = Path(".work/drift")


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """What a look at incoming footage found."""

    verdict: Verdict | Literal["nothing to compare"]
    message: str
    """One line for people."""
    comparisons: tuple[Comparison, ...] = ()
    report: Path | None = None
    """All numbers, as JSON."""


def watch_champion(
    root: Path, footage: Path | None = None, *, report: Callable[[str], None] = print
) -> Watch:
    """Compare footage (by default what params.yaml or data/incoming/NAME has) with the champion's reference."""
    from deploy.bundle import open_bundle
    from pipelines.footage_values import find_footage, incoming_values

    champion = read_champion(root)
    if champion is None:
        return Watch(
            verdict="nothing to compare", message="there is no champion yet: run `lstfe ops retrain`"
        )
    config, wanted = load_config(root / PARAMS), load_operations(root / PARAMS).drift
    folder = root / (footage or wanted.footage or INCOMING / config.data.name)
    videos = find_footage(folder)
    if not videos:
        return Watch(verdict="nothing to compare", message=f"{folder}: no footage in it")
    reference = load_reference(reference_path(root, champion.version))
    report(f"{len(videos)} videos of {folder} go through version {champion.version}")
    now = incoming_values(
        open_bundle(champion.bundle), folder, videos, wanted, jpeg_quality=config.prepare.jpeg_quality
    )
    found = compare(reference, now, wanted)
    verdicts = [item.verdict for item in found]
    verdict: Verdict = "as before"
    if "drift" in verdicts:
        verdict = "drift"
    elif "too few videos" in verdicts:
        verdict = "too few videos"
    changed = [item.quantity for item in found if item.verdict == verdict]
    words = verdict if verdict == "as before" else f"{verdict} ({', '.join(changed)})"
    message = f"{len(videos)} videos of {folder} against version {champion.version}: {words}"
    path = root / REPORTS / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "verdict": verdict,
        "champion": champion.version,
        "footage": [str(video) for video in videos],
        "comparisons": to_json(found),
    }
    with new_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return Watch(verdict=verdict, message=message, comparisons=tuple(found), report=path)
