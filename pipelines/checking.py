"""`lstfe data check`: the check of a raw data set, its report on disk, and what to tell the user."""

from __future__ import annotations

import logging
from pathlib import Path

from lstfe.config import Config
from lstfe.data.check.page import write_page
from lstfe.data.check.report import check_data_set
from lstfe.errors import UserError
from lstfe.params import load_config
from pipelines.paths import CHECKED, PARAMS, find_project

logger = logging.getLogger("pipelines.checking")


def check_raw(raw: Path, output: Path | None, *, root: Path | None = None) -> tuple[str, bool]:
    """Check `raw`, write report.json and report.html, and return what to print and whether all is well.

    `root` is the project whose model's anchors are looked at, by default the current one; outside of any they are those
    of a model without settings, and `output` must say where the report goes.
    """
    root = root or _current_project()
    if root is None and output is None:
        raise UserError(
            f"{raw}: no project here or above, where its report would go; name a folder: --output REPORT"
        )
    model = (load_config(root / PARAMS) if root else Config()).model
    report = check_data_set(raw, model, report_progress=_show)
    # Not into `raw`: that would change the data that DVC versions.
    output = output or (root or Path()) / CHECKED / raw.resolve().name
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.json").write_text(report.to_json(), encoding="utf-8")
        (output / "report.html").write_text(write_page(report), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{output}: not writable ({error.strerror}), expected a folder for the report"
        ) from None
    return f"{report.to_text()}\nreport: {output / 'report.html'} and report.json", report.num_errors == 0


def _current_project() -> Path | None:
    try:
        return find_project()
    except UserError:
        return None


def _show(done: int, total: int, video: str) -> None:
    logger.info("video %d/%d  %s", done, total, video)
