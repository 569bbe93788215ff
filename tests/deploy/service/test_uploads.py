from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from deploy.service.uploads import UploadedFile, UploadError, UploadTooLargeError, receive_files


def receive(
    content: bytes,
    content_type: str,
    folder: Path,
    *,
    chunk: int = 100,
    max_bytes: int = 10_000,
    max_files: int = 2,
) -> list[UploadedFile]:
    async def body() -> AsyncIterator[bytes]:
        for begin in range(0, len(content), chunk):
            yield content[begin : begin + chunk]

    return asyncio.run(receive_files(body(), content_type, folder, max_bytes=max_bytes, max_files=max_files))


def form(*files: tuple[str, bytes], field: str = "file", **data: str) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://x", files=[(field, file) for file in files], data=data)
    return request.read(), request.headers["Content-Type"]


@pytest.mark.parametrize("chunk", [1, 7, 100, 100_000])
def test_files_are_written_whole_however_they_arrive(tmp_path: Path, chunk: int) -> None:
    contents = [bytes(range(256)) * 3, b"\r\n--almost a boundary\r\n"]
    files = receive(*form(("a.mp4", contents[0]), ("b.mp4", contents[1]), note="x"), tmp_path, chunk=chunk)
    assert [(file.name, file.path.name) for file in files] == [("a.mp4", "0.video"), ("b.mp4", "1.video")]
    assert [file.path.read_bytes() for file in files] == contents


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "a\x00b", "", "%2e%2e%2fx", "."]
)
def test_a_name_is_a_label_and_never_a_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    receive(*form((name, b"video")), folder)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["job/0.video"]


def test_more_than_the_limit_is_refused_while_it_arrives(tmp_path: Path) -> None:
    with pytest.raises(UploadTooLargeError, match="more than 10000 bytes"):
        receive(*form(("a.mp4", bytes(20_000))), tmp_path)
    assert (tmp_path / "0.video").stat().st_size <= 10_000
    with pytest.raises(UploadTooLargeError, match="more than 1 videos"):
        receive(*form(("a", b"1"), ("b", b"2")), tmp_path / "..", max_files=1)
    with pytest.raises(UploadTooLargeError, match="too much besides"):
        receive(*form(("a", bytes(100_000)), field="other"), tmp_path, max_bytes=200_000)


@pytest.mark.parametrize(
    ("content", "content_type", "message"),
    [
        (b"", "multipart/form-data", "no multipart boundary"),
        (b"", "multipart/form-data; boundary=" + "b" * 71, "no multipart boundary"),
        (b"", "multipart/form-data; boundary=b", "ends before"),
        (b"rubbish", "multipart/form-data; boundary=b", "not well-formed"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", "no part named `file`|not well-formed"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf', "multipart/form-data; boundary=b", "ends"),
        (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--b--\r\n', "multipart/form-data; boundary=b",
         "no part named"),
        (b"--b\r\n\r\nno header\r\n--b--\r\n", "multipart/form-data; boundary=b", "no part named"),
        (b"--b\r\nA: " + b"x" * 9000 + b"\r\n\r\n\r\n--b--", "multipart/form-data; boundary=b", "not well-formed"),
    ],
)  # fmt: skip
def test_a_malformed_body_is_refused(tmp_path: Path, content: bytes, content_type: str, message: str) -> None:
    with pytest.raises(UploadError, match=message):
        receive(content, content_type, tmp_path)
