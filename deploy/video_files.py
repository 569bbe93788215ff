"""Many videos by folder, glob or bucket: `videos/`, `videos/2026-*.mp4`, `s3://bucket/night/`, through fsspec."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lstfe.data.footage import VIDEO_SUFFIXES
from lstfe.errors import UserError, one_line

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extra of this package that brings the library of an address."""


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video somewhere, under the name that its results carry."""

    name: str
    """Path below what was asked for, without its suffix unless that makes two videos one."""
    url: str

    def fingerprint(self) -> str:
        """Return a hash of the content; of a remote file what its store says of it (an ETag, size and time)."""
        files, path = _open(self.url)
        try:
            if isinstance(files, LocalFileSystem):
                with Path(path).open("rb") as file:
                    return file_digest(file, "sha256").hexdigest()
            return sha256(str(files.ukey(path)).encode()).hexdigest()
        except OSError as error:
            raise UserError(f"{self.url}: cannot be read ({one_line(error)})") from None

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        """Give the video as a local file, which is gone afterwards if it had to be fetched."""
        files, path = _open(self.url)
        if isinstance(files, LocalFileSystem):
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="lstfe-") as folder:
            # Not under its own name, which is the store's to choose and may be anything.
            fetched = Path(folder) / f"video{PurePosixPath(path).suffix.lower()}"
            try:
                files.get_file(path, str(fetched))
            except OSError as error:
                raise UserError(f"{self.url}: cannot be fetched ({one_line(error)})") from None
            yield fetched


def find_videos(sources: Iterable[str]) -> list[VideoFile]:
    """Return the videos of files, folders (with all below them), globs and fsspec addresses, in order of name.

    Raises UserError for a source without videos and for an address whose library is missing.
    """
    found: dict[str, PurePosixPath] = {}
    for source in sources:
        files, path = _open(source)
        try:
            below, paths = _listed(files, path)
        except OSError as error:
            raise UserError(f"{source}: cannot be listed ({one_line(error)})") from None
        if not paths:
            raise UserError(
                f"{source}: no video there, expected a file, a folder or a pattern of {', '.join(VIDEO_SUFFIXES)}"
            )
        found |= {_url(files, item): PurePosixPath(item).relative_to(below) for item in paths}
    stems = Counter(path.with_suffix("") for path in found.values())
    names = {url: str(p.with_suffix("") if stems[p.with_suffix("")] == 1 else p) for url, p in found.items()}
    if doubles := [name for name, number in Counter(names.values()).items() if number > 1]:
        raise UserError(
            f"two videos are both called {doubles[0]} below what was asked for; ask for the folder above them"
        )
    return sorted((VideoFile(name, url) for url, name in names.items()), key=lambda video: video.name)


def _listed(files: Any, path: str) -> tuple[PurePosixPath, list[str]]:
    """Return the folder that names count from, and the videos."""
    if any(sign in path for sign in "*?["):
        parts = PurePosixPath(path).parts
        first = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
        return PurePosixPath(*parts[:first]), _videos(files.glob(path))
    if files.isdir(path):
        return PurePosixPath(path), _videos(files.find(path))
    if files.isfile(path):
        return PurePosixPath(path).parent, [path]
    return PurePosixPath(path), []


def _videos(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES]


def _open(source: str) -> tuple[Any, str]:
    protocol = source.partition("://")[0] if "://" in source else "file"
    try:
        files, path = fsspec.core.url_to_fs(source)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install 'lstfe[{extra}]'" if extra else "install what it names"
        raise UserError(f"{protocol}:// needs a library ({one_line(error)}): {advice}") from None
    except ValueError as error:
        raise UserError(f"{protocol}:// is no store of files ({one_line(error)})") from None
    return files, str(path)


def _url(files: Any, path: str) -> str:
    return path if isinstance(files, LocalFileSystem) else str(files.unstrip_protocol(path))
