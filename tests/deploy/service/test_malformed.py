"""What strangers send: generated from the service's own description, and worse."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

TOKEN = "a-token-of-the-first-client"


@pytest.fixture
def watched(
    serve: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Any]:
    """A service with a token; afterwards nothing lies outside its spool, and no secret is in its log."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    running = serve(
        tokens=TOKEN, max_queued_jobs=10_000, max_kept_jobs=20, fetch_timeout_s=0.1, max_frames=50
    )
    running.client.headers["Authorization"] = f"Bearer {TOKEN}"
    before = set(tmp_path.rglob("*"))
    yield running
    left = {path for path in tmp_path.rglob("*") if (tmp_path / "spool") not in path.parents} - before
    assert {path for path in left if path.suffix != ".mp4"} == set()
    own = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("deploy"))
    assert TOKEN not in own
    assert "secret" not in own
    assert running.client.get("/readyz").status_code == 200, "and it is still in service"


def send_generated(child: Any, number: int) -> None:
    """Send so many requests that are generated from the description, right and wrong ones."""
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {TOKEN}"}
        schema = schemathesis.openapi.from_dict(session.get(f"{child.url}/openapi.json").json())
        statuses: list[int] = []
        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:
            strategies = [operation.as_strategy(mode) for mode in GenerationMode]

            @settings(
                max_examples=number // 4 if operation.path.startswith("/v1") else 5,
                phases=[Phase.generate],
                database=None,
                derandomize=True,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=st.one_of(strategies))
            def send(case: Any) -> None:
                response = case.call(base_url=child.url, session=session, headers=headers)
                statuses.append(response.status_code)
                case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])

            send()
    assert len(statuses) >= 5 / 6 * number
    assert {200, 202, 422} <= set(statuses)
    assert max(statuses) < 500


@pytest.fixture
def stranger(serve_child: Callable[..., Any], bundle_dir: Path, tmp_path: Path) -> Iterator[Any]:
    """A process with a token; afterwards it has written nowhere else, and its log holds no secret."""
    (tmp_path / "temporary").mkdir()
    os.environ["TMPDIR"], before = str(tmp_path / "temporary"), os.environ.get("TMPDIR")
    try:
        child = serve_child(
            "--bundle", bundle_dir, tokens=TOKEN, spool=tmp_path / "spool", fetch_timeout_s=0.1, drain_s=0
        )
    finally:
        os.environ.pop("TMPDIR")
        os.environ.update({} if before is None else {"TMPDIR": before})
    yield child
    assert child.end() == 0
    assert list((tmp_path / "temporary").iterdir()) == list((tmp_path / "spool").iterdir()) == []
    log = child.log.read_text()
    assert TOKEN not in log
    assert "Traceback" not in log


def test_generated_requests_are_never_our_fault(stranger: Any) -> None:
    send_generated(stranger, 90)


@pytest.mark.slow
def test_five_hundred_generated_requests_are_never_our_fault(stranger: Any) -> None:
    send_generated(stranger, 600)


def huge_jpeg() -> bytes:
    """A JPEG of 8 x 8 pixels that says it has 65500 x 65500."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    content = bytearray(out.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(content)


def test_damaged_videos_end_as_failed_jobs(
    watched: Any, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    whole = make_video(20).read_bytes()
    videos = []
    for number, content in enumerate(
        [b"", b"\x00", whole[: len(whole) // 2], whole[len(whole) // 2 :], whole[:-300], os.urandom(3000),
         huge_jpeg() * 3, b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\n#EXT-X-ENDLIST\n", b"RIFF\xff\xff\xff\xffAVI LIST"]
    ):  # fmt: skip
        path = tmp_path / "here" / f"{number}.mp4"
        path.write_bytes(content)
        videos.append(path)
    job = watched.finished(watched.submit(*videos)["id"])
    for path in videos:
        path.unlink()
    assert [video["state"] for video in job["videos"]] == ["failed"] * len(videos)
    for video in job["videos"]:
        assert video["error"].startswith(video["name"] + ": ")
        assert str(tmp_path) not in video["error"]
        assert "root:" not in video["error"]
    good = watched.finished(watched.submit(make_video(2))["id"])
    assert good["state"] == "done"


@pytest.mark.parametrize(
    "name", ["../../../tmp/x.mp4", "/etc/cron.d/x", "..\\x", "a/../../b", "\x00", "x" * 5000, "."]
)
def test_names_reach_no_folder(watched: Any, make_video: Callable[..., Path], name: str) -> None:
    body = io.BytesIO(
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n\r\n'
        + make_video(1).read_bytes() + b"\r\n--b--\r\n"
    )  # fmt: skip
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = watched.client.post("/v1/videos", content=body.read(), headers=headers)
    assert answer.status_code in (202, 422)
    if answer.status_code == 202:
        [video] = watched.finished(answer.json()["id"])["videos"]
        assert not set("/\\\x00") & set(video["name"])


@pytest.mark.parametrize(
    "path", ["/v1/videos/..%2f..%2fetc", "/v1/videos/../../etc/passwd", "/%2e%2e/x", "/v1//videos"]
)
def test_paths_lead_nowhere(watched: Any, path: str) -> None:
    assert watched.client.get(path).status_code in (404, 405, 422)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:22/", "http://[::1]/", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/a",
     "http://localhost/secret", "http://0/", "http://2130706433/", "http://user:secret@example.com/", "file:///etc/passwd",
     "gopher://example.com", "http://\u202eexample.com", "", "a" * 5000],
)  # fmt: skip
def test_addresses_that_lead_inside_are_refused(watched: Any, url: str) -> None:
    answer = watched.client.post("/v1/videos", json={"urls": [url]})
    assert answer.status_code == 422
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"urls": ' + "[" * 5000, json.dumps({"urls": ["x"] * 20_000}), '{"urls": ["\\ud800"]}', "\x00",
     '{"urls": null}', '{"urls": {"a": 1}}', "1e999", '{"urls": ["http://a"], "urls": 1}'],
)  # fmt: skip
def test_odd_json_is_refused(watched: Any, content: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = watched.client.post("/v1/videos", content=content.encode(), headers=headers)
    assert answer.status_code in (413, 422)
