"""`lstfe data check`: the check of a raw data set, its report on disk, and what to tell the user."""

from __future__ import annotations

import logging
from pathlib import Path

from lstfe.data.check.page import write_page
from lstfe.data.check.report import check_data_set
from lstfe.errors import UserError
from lstfe.params import load_config
from pipelines.paths import CHECKED, PARAMS, find_project

logger = logging.getLogger("pipelines.checking")


def check_raw(raw: Path, output: Path | None, *, root: Path | None = None) -> tuple[str, bool]:
    """Check `raw`, write report.json and report.html, and return what to print and whether all is well.

    `root` is the project whose model's anchors are looked at, by default the current one.
    """
    root = root or find_project()
    model = load_config(root / PARAMS).model
    report = check_data_set(raw, model, report_progress=_show)
    # Not into `raw`: that would change the data that DVC versions.
    output = output or root / CHECKED / raw.resolve().name
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.json").write_text(report.to_json(), encoding="utf-8")
        (output / "report.html").write_text(write_page(report), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{output}: not writable ({error.strerror}), expected a folder for the report"
        ) from None
    return f"{report.to_text()}\nreport: {output / 'report.html'} and report.json", report.num_errors == 0


def _show(done: int, total: int, video: str) -> None:
    logger.info("video %d/%d  %s", done, total, video)
