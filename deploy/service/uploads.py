"""Reads a multipart upload straight into the spool, bounded while it arrives, and touches no other folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import anyio.to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from lstfe.errors import UserError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_WRITE_BYTES = 1024 * 1024
_MAX_OTHER_BYTES = 64 * 1024


class UploadError(UserError):
    """An upload is malformed or holds no video."""


class UploadTooLargeError(UserError):
    """An upload is larger than the service takes."""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of an upload."""

    name: str
    """What the client calls it: a label, and nothing to build a path from."""
    path: Path


@dataclass(slots=True)
class _Part:
    """The part of the body that is being read."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    header_name: bytes = b""
    header_value: bytes = b""
    is_file: bool = False


async def receive_files(
    body: AsyncIterator[bytes], content_type: str, folder: Path, *, max_bytes: int, max_files: int
) -> list[UploadedFile]:
    """Write the parts named `file` into `folder` as 0.video, 1.video, ...; other parts are read and dropped.

    Raises UploadError for a malformed body, UploadTooLargeError past `max_bytes` of body or `max_files` files.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary or len(boundary) > 70:
        raise UploadError(
            "the body has no multipart boundary of at most 70 characters; send a file as form data"
        )
    receiver = _Receiver(folder, max_files)
    parser = MultipartParser(boundary, receiver.callbacks())
    received = 0
    try:
        async for chunk in body:
            received += len(chunk)
            if received > max_bytes:
                raise UploadTooLargeError(f"more than {max_bytes} bytes; cut the video into pieces")
            parser.write(chunk)
            if receiver.num_buffered >= _WRITE_BYTES:
                await anyio.to_thread.run_sync(receiver.flush)
        parser.finalize()
        await anyio.to_thread.run_sync(receiver.flush)
    except MultipartParseError:
        raise UploadError("the body is not well-formed multipart form data; send it again") from None
    finally:
        receiver.close()
    if not receiver.is_whole:
        raise UploadError("the body ends before its last boundary; send it again")
    if not receiver.files:
        raise UploadError("no part named `file` with a video in it")
    return receiver.files


class _Receiver:
    """Callbacks of the parser: they only collect; `flush` writes, away from the event loop."""

    def __init__(self, folder: Path, max_files: int) -> None:
        self.files: list[UploadedFile] = []
        self.is_whole = False
        self.num_buffered = 0
        self._folder, self._max_files = folder, max_files
        self._pieces: list[tuple[BinaryIO, bytes]] = []
        self._open: list[BinaryIO] = []
        self._part = _Part()
        self._num_other = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def flush(self) -> None:
        pieces, self._pieces, self.num_buffered = self._pieces, [], 0
        for file, piece in pieces:
            file.write(piece)

    def close(self) -> None:
        for file in self._open:
            file.close()

    def _begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.lower()] = part.header_value
        part.header_name = part.header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        if options.get(b"name") != b"file":
            return
        if len(self.files) == self._max_files:
            raise UploadTooLargeError(f"more than {self._max_files} videos; send them in several requests")
        path = self._folder / f"{len(self.files)}.video"
        file = path.open("xb")
        self._open.append(file)
        self._part.is_file = True
        self.files.append(UploadedFile(options.get(b"filename", b"").decode("utf-8", "replace"), path))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self._pieces.append((self._open[-1], data[start:end]))
            self.num_buffered += end - start
            return
        self._num_other += end - start
        if self._num_other > _MAX_OTHER_BYTES:
            raise UploadTooLargeError("too much besides the videos; send parts named `file` alone")

    def _end(self) -> None:
        self.is_whole = True
