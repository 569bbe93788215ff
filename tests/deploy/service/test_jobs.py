from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.service.jobs import label_of


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("", "video"),
        ("clip.mp4", "clip"),
        ("a.b.mp4", "a.b"),
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\clip.mp4", "clip"),
        ("..", "video"),
        ("<script>.mp4", "_script_"),
        ("a\nb\x00c.mp4", "a_b_c"),
        ("Möwe 1.mkv", "Möwe 1"),
        ("x" * 300, "x" * 100),
    ],
)
def test_a_label_holds_nothing_but_a_name(given: str, label: str) -> None:
    assert label_of(given, []) == label


def test_labels_of_one_job_differ() -> None:
    labels: list[str] = []
    for _ in range(3):
        labels.append(label_of("clip.mp4", labels))
    assert labels == ["clip", "clip-2", "clip-3"]


def test_results_are_gone_with_time_also_when_nobody_asks(
    serve: Callable[..., Any], make_video: Callable[..., Path], tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    running = serve(keep_results_s=0.2)
    folder = tmp_path / "spool" / running.submit(make_video(2))["id"]
    wait_for(lambda: not folder.exists())
    assert running.service.jobs.is_idle


def test_a_spool_that_fails_takes_no_places_in_the_queue(
    serve: Callable[..., Any], make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(max_queued_jobs=1)

    def fail(job_id: str) -> Path:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(running.service.spool, "new_entry", fail)
        for _ in range(2):
            answer = running.client.post("/v1/videos", files={"file": ("a.mp4", b"x")})
            assert answer.status_code == 500
    assert running.finished(running.submit(make_video(2))["id"])["state"] == "done"


def test_a_file_that_cannot_be_removed_takes_no_worker(
    serve: Callable[..., Any],
    tmp_path: Path,
    make_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve(running_jobs=1)
    unlink = Path.unlink

    def fail(path: Path, **options: bool) -> None:
        if path.suffix == ".video":
            raise OSError("read-only file system")
        unlink(path, **options)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", fail)
        assert running.finished(running.submit(make_video(2))["id"])["state"] == "failed"
    assert running.finished(running.submit(make_video(2))["id"])["state"] == "done"


def test_a_job_that_cannot_be_ended_does_not_keep_the_service(
    serve: Callable[..., Any],
    make_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    wait_for: Callable[..., Any],
) -> None:
    monkeypatch.setattr("deploy.service.job_queue._STOP_S", 0.1)
    is_over = threading.Event()
    monkeypatch.setattr("deploy.service.job_run.JobRun.run", lambda run: is_over.wait(30) and "failed")
    running = serve(running_jobs=1)
    running.submit(make_video(2))
    wait_for(lambda: running.service.jobs.num_running == 1)
    begun = time.monotonic()
    running.service.jobs.stop()
    assert time.monotonic() - begun < 5
    is_over.set()
