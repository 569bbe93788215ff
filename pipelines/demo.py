"""`lstfe demo`: the whole way on the embedded videos, a detection at the end, and where to look."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lstfe.data.prepared import split_path
from lstfe.errors import UserError
from lstfe.params import load_config
from pipelines.checkout import settle_git
from pipelines.compare import compared_runs
from pipelines.environment import apply_default_settings
from pipelines.paths import DEMO, DEPLOYED, EVALUATED, PARAMS, PREPARED, RAW
from pipelines.stage import outdated_stages
from pipelines.tracking import runs_page, tag_lock
from pipelines.trained import RUN

_STAMP = "bundle.json"


def reproduce_stages(root: Path) -> dict[str, bool]:
    """Bring all stages up to date with the Prefect flow; return which ran."""
    apply_default_settings()
    from pipelines.flows import reproduce

    with explained_unreachable_server():
        ran = dict(reproduce(root))
    if any(ran.values()):
        tag_lock(RUN)
    return ran


@contextlib.contextmanager
def explained_unreachable_server() -> Iterator[None]:
    """Turn what a flow raises when its Prefect server is not there into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Failed to reach API"):
            raise
        advice = "start that server, or unset PREFECT_API_URL to use one of this project's own"
        raise UserError(f"Prefect: {error}; {advice}") from None


def run_demo(root: Path) -> str:
    """Bring everything up to date, detect on a test video, and return the closing screen. Runs in `root`."""
    name = load_config(PARAMS).data.name
    note = settle_git(root)
    if outdated_stages(root):
        reproduce_stages(root)
    else:
        print("all stages are up to date, nothing to run")
    _detect(video_to_show(name))
    return closing_screen(note)


def video_to_show(name: str) -> Path:
    """Return the test video with the most annotations, of any split where there is no test split."""
    for split in ("test", "val", "train"):
        path = split_path(PREPARED / name, split)
        if path.is_file():
            break
    else:
        raise UserError(f"{PREPARED / name}: no annotations; run `lstfe reproduce`")
    data = json.loads(path.read_text(encoding="utf-8"))
    counts = dict.fromkeys((video["id"] for video in data["videos"]), 0)
    for annotation in data["annotations"]:
        counts[annotation["video_id"]] += 1
    chosen = max(data["videos"], key=lambda video: counts[video["id"]])
    return RAW / name / str(chosen["file_name"])


def _detect(video: Path) -> None:
    """Detect on `video` with the deployed bundle, unless this very bundle has done so."""
    from deploy.detect import detect_source

    wanted = {
        "video": video.as_posix(),
        "manifest": json.loads((DEPLOYED / "manifest.json").read_text(encoding="utf-8")),
    }
    stamp = DEMO / _STAMP
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        return
    print(detect_source(video, DEPLOYED, output_dir=DEMO).message)
    stamp.write_text(json.dumps(wanted), encoding="utf-8")


def closing_screen(note: str | None) -> str:
    """Say in one screen what came out and where to look."""
    tools = _tools_folder()
    lines = [
        "",
        compared_runs(),
        "",
        f"annotated video   {DEMO / 'annotated.mp4'}",
        f"detections        {DEMO / 'detections.json'}",
        f"scores, misses    {EVALUATED}/report.html, {EVALUATED}/metrics.json",
        f"deployed bundle   {DEPLOYED}",
        f"MLflow runs       DO_NOT_TRACK=true {tools}/mlflow ui --workers 1 "
        "--backend-store-uri sqlite:///.work/mlflow.db",
        f"                  then http://127.0.0.1:5000/{runs_page()}",
        f"Prefect page      {tools}/prefect server start, then http://127.0.0.1:4200",
        f"another video     {tools}/lstfe detect VIDEO --bundle artifacts/deployed",
        "the comparator    make compare",
    ]
    return "\n".join([*lines, note] if note else lines)


def _tools_folder() -> str:
    folder = Path(sys.executable).parent
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
