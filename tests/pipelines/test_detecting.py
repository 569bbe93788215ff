"""`lstfe detect-all` up to where the flow begins; tests/operations runs it on Dask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from deploy.detect_all import VideoOutcome
from lstfe.errors import UserError
from pipelines import detecting
from pipelines.detecting import closing_line, detect_all
from pipelines.task_runners import RunnerSettings


def test_nothing_done_is_said_too() -> None:
    assert closing_line([], Path("out/detections.json")) == "0 videos (), 0 detections -> out/detections.json"


def test_the_closing_line_counts_by_what_became_of_a_video() -> None:
    outcomes = [
        VideoOutcome(name="a", state="detected", num_detections=3),
        VideoOutcome(name="b", state="up to date", num_detections=4),
        VideoOutcome(name="c", state="failed", reason="broken"),
    ]

    line = closing_line(outcomes, Path("d.json"))

    assert line == "3 videos (1 detected, 1 up to date, 1 failed), 7 detections -> d.json"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "abacus"}, "runner must be one of processes, threads, dask, ray, got 'abacus'"),
        ({"num_workers": 0}, "must be >= 1, got 0"),
        ({"address": "tcp://x:1"}, "an address is for the runners dask and ray, not for processes"),
    ],
)
def test_a_runner_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunnerSettings(**settings)


@pytest.mark.parametrize(("kind", "extra"), [("dask", "scale"), ("ray", "ray")])
def test_a_runner_without_its_package_names_the_extra(
    kind: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.task_runners.find_spec", lambda module: None)

    with pytest.raises(UserError, match=rf"needs prefect-{kind}: pip install 'lstfe\[{extra}\]'"):
        RunnerSettings(kind=kind)


@pytest.mark.parametrize("fails", [False, True])
def test_prefect_sends_what_is_left_while_its_server_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    told: list[str] = []

    @contextmanager
    def some_server(root: Path) -> Iterator[None]:
        try:
            yield
        finally:
            told.append("server stopped")

    class Flow:
        def with_options(self, **options: Any) -> Any:
            return self

        def __call__(self, *_: Any) -> list[VideoOutcome]:
            if fails:
                raise KeyboardInterrupt
            return []

    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        monkeypatch.setattr(worker, "drain_all", lambda timeout, name=worker.__name__: told.append(name))
    monkeypatch.setattr("pipelines.detection_flow.detect_videos", Flow())
    monkeypatch.setattr(detecting, "some_prefect_server", some_server)
    monkeypatch.setattr(detecting, "open_bundle", lambda bundle: None)
    monkeypatch.setattr(detecting, "find_videos", lambda sources: [])
    monkeypatch.setattr(detecting, "merge_results", lambda job, names: tmp_path)

    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        detect_all(["x"], tmp_path, tmp_path / "out")

    assert told == ["EventsWorker", "APILogWorker", "server stopped"]


def test_without_a_bundle_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a bundle"):
        detect_all([str(tmp_path)], tmp_path / "none", tmp_path / "out")

    assert not (tmp_path / "out").exists()
