"""Is one run better than another? Paired on the same videos, from the detections that both have left behind."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lstfe.config import EvaluateConfig
from lstfe.data.prepared import load_split
from lstfe.errors import UserError
from lstfe.evaluation.bootstrap import Difference, paired_differences
from lstfe.evaluation.presets import find_protocol
from lstfe.evaluation.records import ScoredFrames, load_detections, scored_frames
from lstfe.params import load_config
from pipelines.paths import EVALUATED, PARAMS, PREPARED
from pipelines.tables import FIGURES
from pipelines.tracking import fetch_file

logger = logging.getLogger(__name__)

UNKNOWN = "-"
_DETECTIONS = EVALUATED / "detections.json"


def differences(current: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return run id -> its first figure less the current run's, with the interval; UNKNOWN where data is missing."""
    texts = {str(run["id"]): UNKNOWN for run in others}
    try:
        wanted, ours = _load_current(current) if others else (None, None)
    except UserError as error:
        logger.warning("no differences: %s", error)
        return texts
    for run in others:
        theirs = _load_other(current, run)
        if wanted is not None and ours is not None and theirs is not None:
            texts[str(run["id"])] = _text(_difference(theirs, ours, wanted))
    return texts


def _load_current(current: Mapping[str, Any]) -> tuple[EvaluateConfig, ScoredFrames]:
    return load_config(PARAMS).evaluate, _score(current, _DETECTIONS)


def _load_other(current: Mapping[str, Any], run: Mapping[str, Any]) -> ScoredFrames | None:
    """Read a run's detections from MLflow, else from its DVC experiment; None where neither has usable ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_file(run["id"], "evaluated/detections.json", Path(folder))
        path = path or _fetch_from_experiment(run["tags"].get("dvc.exp_name"), Path(folder))
        try:
            return _score(current, path) if path else None
        except UserError as error:
            logger.warning("%s: no difference: %s", run["tags"].get("mlflow.runName", run["id"]), error)
            return None


def _fetch_from_experiment(name: str | None, destination: Path) -> Path | None:
    if name is None:
        return None
    from dvc.api import read
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        content = read(_DETECTIONS.as_posix(), rev=name)
    except (DvcException, SCMError, OSError):  # removed, or its outputs are not in the cache
        return None
    path = destination / _DETECTIONS.name
    path.write_text(content, encoding="utf-8")
    return path


def _score(current: Mapping[str, Any], path: Path) -> ScoredFrames:
    """Put detections beside the ground truth that the current run was evaluated on."""
    params = current["params"]
    annotations, _ = load_split(PREPARED / params["data.name"], params["evaluate.split"])
    return scored_frames(
        annotations, load_detections(path), frame_stride=int(params["evaluate.frame_stride"])
    )


def _difference(first: ScoredFrames, second: ScoredFrames, wanted: EvaluateConfig) -> Difference:
    protocol, figure = FIGURES[0].split(".")
    found = paired_differences(
        find_protocol(protocol), first, second, resamples=wanted.resamples, seed=wanted.seed
    )
    return found[figure]


def _text(found: Difference) -> str:
    if found.difference is None:
        return UNKNOWN
    if found.interval is None:
        return f"{found.difference:+.3f}"
    low, high = found.interval
    return f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f})"
