from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.detect import detect_source
from lstfe.evaluation.records import load_detections

TOKEN = "a-token-of-the-first-client"
OTHER = "a-token-of-the-other-client"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ---------------------------------------------------------------------------------------------------- videos


def test_an_upload_gives_what_lstfe_detect_writes(
    serve: Callable[..., Any], make_video: Callable[..., Path], bundle_dir: Path, tmp_path: Path
) -> None:
    running = serve()
    job = running.submit(make_video(7))
    assert job["state"] in ("queued", "running")
    done = running.finished(job["id"])
    assert (done["state"], done["progress"]) == ("done", 1.0)
    [video] = done["videos"]
    assert (video["name"], video["num_frames"], video["frames_done"]) == ("clip", 7, 7)
    assert (video["width"], video["height"], video["frame_rate"]) == (96, 64, 30.0)
    answer = running.client.get(f"/v1/videos/{job['id']}/detections")
    assert answer.headers["Model-Version"] == done["model"]["version"]
    (tmp_path / "served.json").write_bytes(answer.content)
    detect_source(make_video(7), bundle_dir, output_dir=tmp_path / "out", progress=False)
    expected = load_detections(tmp_path / "out" / "detections.json")
    assert load_detections(tmp_path / "served.json") == expected
    assert len(expected) == done["num_detections"] > 0


def test_several_videos_are_one_job_and_a_broken_one_fails_alone(
    serve: Callable[..., Any], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    running = serve()
    good, broken = make_video(3), tmp_path / "broken.mp4"
    broken.write_bytes(bytes(4000))
    job = running.finished(running.submit(good, broken, good)["id"])
    assert [(video["name"], video["state"]) for video in job["videos"]] == [
        ("clip", "done"),
        ("broken", "failed"),
        ("clip-2", "done"),
    ]
    assert job["state"] == "failed"
    assert "broken: cannot be opened" in job["videos"][1]["error"]
    path = f"/v1/videos/{job['id']}/detections"
    refused = running.client.get(path)
    assert refused.status_code == 409
    assert "partial=true" in refused.json()["detail"]
    records = running.client.get(path, params={"partial": True}).json()
    assert {record["video"] for record in records} == {"clip", "clip-2"}


def test_results_can_be_read_bit_by_bit(serve: Callable[..., Any], make_video: Callable[..., Path]) -> None:
    running = serve()
    job = running.submit(make_video(30))
    path, cursor, records = f"/v1/videos/{job['id']}/detections", 0, []
    while True:
        state = running.client.get(f"/v1/videos/{job['id']}").json()["state"]
        answer = running.client.get(path, params={"partial": True, "cursor": cursor})
        records += answer.json()
        cursor = int(answer.headers["Next-Cursor"])
        if state == "done":
            break
    assert records == running.client.get(path).json()
    assert running.client.get(path, params={"cursor": cursor}).json() == []
    assert running.client.get(path, params={"cursor": cursor + 1}).status_code == 422
    assert running.client.get(path, params={"cursor": 3}).status_code == 422


def test_deleting_cancels_and_leaves_no_file(
    serve: Callable[..., Any], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    running = serve(running_jobs=1)
    jobs = [running.submit(make_video(200)) for _ in range(2)]
    for job in reversed(jobs):
        assert running.client.delete(f"/v1/videos/{job['id']}").status_code == 204
        assert running.client.get(f"/v1/videos/{job['id']}").status_code == 404
        assert running.client.delete(f"/v1/videos/{job['id']}").status_code == 404
    done = running.finished(running.submit(make_video(2))["id"])
    assert done["state"] == "done"
    assert running.client.delete(f"/v1/videos/{done['id']}").status_code == 204
    spool = tmp_path / "spool"
    assert [path.name for path in spool.iterdir()] == [".lock"]


def test_uploads_are_gone_when_they_are_detected_and_results_with_time(
    serve: Callable[..., Any], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    running = serve(max_kept_jobs=1)
    first = running.finished(running.submit(make_video(2))["id"])
    assert [path.name for path in (tmp_path / "spool" / first["id"]).iterdir()] == ["detections.jsonl"]
    second = running.finished(running.submit(make_video(2))["id"])
    assert running.client.get(f"/v1/videos/{first['id']}").status_code == 404
    assert running.client.get(f"/v1/videos/{second['id']}").status_code == 200
    assert not (tmp_path / "spool" / first["id"]).exists()


def test_a_full_queue_says_when_to_come_back(
    serve: Callable[..., Any], make_video: Callable[..., Path]
) -> None:
    running = serve(max_queued_jobs=1, running_jobs=1)
    for _ in range(20):
        files = {"file": ("a.mp4", make_video(100).read_bytes())}
        answer = running.client.post("/v1/videos", files=files)
        if answer.status_code != 202:
            break
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert "jobs wait already" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_frames": 2}, "longer than 2 frames"),
        ({"max_duration_s": 0.05}, "or 0.05 s"),
        ({"max_side_px": 90}, "at most 90 a side"),
        ({"job_timeout_s": 0.01}, "took longer than 0.01 s"),
    ],
)
def test_a_video_over_a_limit_fails_with_its_reason(
    serve: Callable[..., Any], make_video: Callable[..., Path], limits: dict[str, float], message: str
) -> None:
    running = serve(**limits)
    job = running.finished(running.submit(make_video(5))["id"])
    assert job["state"] == "failed"
    assert message in job["videos"][0]["error"]
    assert "spool" not in job["videos"][0]["error"]


def test_an_upload_over_the_limit_is_refused_and_removed(serve: Callable[..., Any], tmp_path: Path) -> None:
    running = serve(max_upload_bytes=1000)

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(100):
            yield bytes(100)

    announced = running.client.post("/v1/videos", files={"file": ("a", bytes(2000))})
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    chunked = running.client.post("/v1/videos", content=endless(), headers=headers)
    assert (announced.status_code, chunked.status_code) == (413, 413)
    assert "at most 1000" in announced.json()["detail"]
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [".lock"]
    many = running.client.post("/v1/videos", json={"urls": ["https://example.com/a"] * 17})
    assert many.status_code == 413


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "", 415),
        (b"x", "text/plain", 415),
        (b"", "multipart/form-data", 422),
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'{"urls": []}', "application/json", 422),
        (b'{"urls": ["http://127.0.0.1/a"]}', "application/json", 422),
        (b'{"urls": ["file:///etc/passwd"]}', "application/json", 422),
        (b'{"urls": ["https://example.com"], "more": 1}', "application/json", 422),
        (b" " * 300_000, "application/json", 413),
    ],
)
def test_a_wrong_body_is_refused_in_one_line(
    serve: Callable[..., Any], content: bytes, content_type: str, status: int
) -> None:
    answer = serve().client.post("/v1/videos", content=content, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert "\n" not in answer.json()["detail"]


@pytest.fixture
def site(make_video: Callable[..., Path]) -> Iterator[str]:
    """A web server on loopback with /clip.mp4."""
    folder = make_video(4).parent

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, directory=str(folder), **options)  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_addresses_are_fetched_where_they_may_be(serve: Callable[..., Any], site: str) -> None:
    running = serve(allow_private_urls=True)
    urls = [f"{site}/clip.mp4?token=secret", f"{site}/missing.mp4?token=secret"]
    answer = running.client.post("/v1/videos", json={"urls": urls})
    assert answer.status_code == 202
    job = running.finished(answer.json()["id"])
    assert [(video["name"], video["state"]) for video in job["videos"]] == [
        ("clip", "done"),
        ("missing", "failed"),
    ]
    assert "answered 404" in job["videos"][1]["error"]
    assert "secret" not in json.dumps(job)


def test_a_job_whose_address_never_ends_is_cancelled_at_once(
    serve: Callable[..., Any], make_video: Callable[..., Path], wait_for: Callable[..., Any]
) -> None:
    running = serve(allow_private_urls=True, running_jobs=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/clip.mp4"
        path = f"/v1/videos/{running.client.post('/v1/videos', json={'urls': [url]}).json()['id']}"
        wait_for(lambda: running.client.get(path).json()["videos"][0]["state"] == "fetching")
        assert running.client.delete(path).status_code == 204
        wait_for(lambda: running.service.jobs.num_running == 0, seconds=3)
    assert running.finished(running.submit(make_video(2))["id"])["state"] == "done"


# ----------------------------------------------------------------------------------------- health and access


def test_before_the_model_is_there_the_service_is_alive_and_not_ready(
    serve: Callable[..., Any], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    running = serve(bundle=None, pointer=tmp_path / "champion.json", is_ready=False)
    assert running.client.get("/healthz").json() == {"status": "alive"}
    ready = running.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["model"]) == (503, "loading", None)
    refused = running.client.post("/v1/videos", files={"file": ("a", b"x")})
    assert refused.status_code == 503
    assert "Retry-After" in refused.headers


def test_a_promotion_changes_the_version_of_new_answers(
    serve: Callable[..., Any],
    make_video: Callable[..., Path],
    promote: Callable[..., Path],
    tmp_path: Path,
    wait_for: Callable[..., Any],
) -> None:
    running = serve(bundle=None, pointer=promote("3"))
    versions = [running.finished(running.submit(make_video(2))["id"])["model"]["version"]]
    promote("4", tmp_path / "nowhere")
    wait_for(lambda: running.client.get("/readyz").json()["fault"])
    assert running.client.get("/readyz").status_code == 200
    assert "lstfe_model_fault 1.0" in running.client.get("/metrics").text
    promote("5")
    wait_for(lambda: running.client.get("/readyz").json()["model"]["version"] == "5")
    versions.append(running.finished(running.submit(make_video(2))["id"])["model"]["version"])
    assert versions == ["3", "5"]


def test_with_tokens_only_health_and_pages_are_open(
    serve: Callable[..., Any], make_video: Callable[..., Path]
) -> None:
    running = serve(tokens=f"{TOKEN},{OTHER}")
    assert running.client.get("/readyz").json()["needs_token"] is True
    for path in ("/metrics", f"/v1/videos/{'0' * 32}"):
        refused = running.client.get(path)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    files = {"file": ("a.mp4", make_video(2).read_bytes())}
    assert running.client.post("/v1/videos", files=files).status_code == 401
    job = running.client.post("/v1/videos", files=files, headers=bearer(TOKEN)).json()
    path = f"/v1/videos/{job['id']}"
    assert running.client.get(path, headers=bearer(TOKEN)).status_code == 200
    for refused in (
        running.client.get(path, headers=bearer(OTHER)),
        running.client.delete(path, headers=bearer(OTHER)),
    ):
        assert refused.status_code == 404, "another client's job is as good as not there"


def test_metrics_count_frames_jobs_and_refusals(
    serve: Callable[..., Any], make_video: Callable[..., Path]
) -> None:
    running = serve()
    running.finished(running.submit(make_video(5))["id"])
    running.client.post("/v1/videos", content=b"", headers={"Content-Type": "text/csv"})
    running.client.get("/v1/videos/x")
    text = running.client.get("/metrics").text
    version = running.client.get("/readyz").json()["model"]["version"]
    for line in (
        'lstfe_frames_total{source="video"} 5.0',
        'lstfe_jobs_total{state="done"} 1.0',
        'lstfe_rejected_total{reason="422"} 1.0',
        f'lstfe_model_info{{role="current",version="{version}"}} 1.0',
        'lstfe_model_loads_total{outcome="loaded"} 1.0',
        "lstfe_jobs_waiting 0.0",
        "lstfe_streams_active 0.0",
        "lstfe_ready 1.0",
        'lstfe_request_seconds_count{method="POST",route="/v1/videos",status="202"} 1.0',
    ):
        assert line in text, line
    assert float(text.partition("lstfe_frame_seconds_count ")[2].split()[0]) >= 6


def test_a_method_of_a_clients_making_is_no_label_of_its_own(serve: Callable[..., Any]) -> None:
    running = serve(tokens=TOKEN)
    for number in range(5):
        assert running.client.request(f"M{number}", "/healthz").status_code == 405
    text = running.client.get("/metrics", headers=bearer(TOKEN)).text
    assert 'lstfe_request_seconds_count{method="other",route="/healthz",status="405"} 5.0' in text
    assert 'method="M' not in text


def test_the_api_page_needs_nothing_from_elsewhere(serve: Callable[..., Any]) -> None:
    running = serve()
    description = running.client.get("/openapi.json").json()
    assert set(description["paths"]) == {
        "/v1/videos",
        "/v1/videos/{job_id}",
        "/v1/videos/{job_id}/detections",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    page = running.client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    for path in description["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert "https:" not in page.text
    assert "<script" not in page.text


# -------------------------------------------------------------------------------------------------- the gate


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1"}, 200),
    ],
)
def test_other_sites_get_no_answer(serve: Callable[..., Any], headers: dict[str, str], status: int) -> None:
    assert serve().client.get("/metrics", headers=headers).status_code == status


def test_a_request_that_takes_too_long_is_ended(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(upload_timeout_s=0.1)

    async def never(*args: object) -> list[object]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr("deploy.service.video_routes._read_videos", never)
    answer = running.client.post("/v1/videos", files={"file": ("a", b"x")})
    assert answer.status_code == 408
    assert "not complete within 0.1 s" in answer.json()["detail"]
    assert running.service.jobs.is_idle, "its place in the queue is free again"


def test_a_bug_of_ours_is_answered_and_logged_without_what_was_sent(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(tokens=TOKEN)

    def fail(*args: object) -> None:
        raise RuntimeError("our own mistake")

    monkeypatch.setattr(running.service.jobs, "find", fail)
    answer = running.client.get(f"/v1/videos/{'0' * 32}?token=secret", headers=bearer(TOKEN))
    assert answer.status_code == 500
    assert answer.json() == {"detail": "internal error (RuntimeError); it is in the service's log"}
    assert "our own mistake" in caplog.text
    assert TOKEN not in caplog.text
    assert "secret" not in caplog.text


def test_too_many_requests_at_once_are_told_to_come_back(serve: Callable[..., Any]) -> None:
    running = serve(max_requests=1)
    running.service.num_requests = 1
    answer = running.client.get("/metrics")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert running.client.get("/healthz").status_code == 200, "a busy service is still alive"


def test_answers_are_neither_cached_nor_guessed_at(serve: Callable[..., Any]) -> None:
    headers = serve().client.get("/healthz").headers
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
