"""What the tests of all importers share: videos and pictures to import, and malformed input."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from lstfe.data.raw import ImportOptions
from lstfe.data.video import VideoWriter
from lstfe.errors import UserError

NUM_MALFORMED = 200
IMAGE_SIZE = (64, 96)
Importer = Callable[[Path, Path, ImportOptions], dict[str, Any]]

_SCRAPS = (
    *(
        b"",
        b"x",
        b"-1",
        b"0",
        b"1e999",
        b"99999999999999999999999",
        b"NaN",
        b"null",
        b"0.5",
        b"\n",
        b",",
        b" ",
    ),
    *(
        b"\xff\xfe",
        b"\x00",
        b"\xe2\x80\xa8",
        b"<",
        b">",
        b"</object>",
        b"<box/>",
        b"&lt;",
        b"&e;",
        b"]",
        b"}",
    ),
    *(b'"', b"[", b"{", b":", b"=", b"[]", b"..", b"/", b"'", b"%", b"#", b"<!DOCTYPE a>", b"\xef\xbb\xbf"),
)


@pytest.fixture
def write_video() -> Callable[[Path, int], None]:
    """A function that writes a grey video of 64x96 pixels and so many frames."""

    def write(path: Path, num_frames: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(path, 30, IMAGE_SIZE) as video:
            for index in range(num_frames):
                video.write(np.full((*IMAGE_SIZE, 3), 10 * index, np.uint8))

    return write


@pytest.fixture
def write_pictures() -> Callable[[Path, Sequence[str]], None]:
    """A function that writes grey pictures of 64x96 pixels by their names."""

    def write(folder: Path, names: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(names):
            Image.new("RGB", IMAGE_SIZE[::-1], (10 * index,) * 3).save(folder / name, "JPEG")

    return write


@st.composite
def _edited(draw: st.DrawFn, original: bytes) -> bytes:
    """A text that is cut off, or in which a few places are overwritten, taken out or put twice."""
    text = original
    for _ in range(draw(st.integers(2, 5))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 1, 1, 2, 5, 20]))
        scrap = draw(
            st.sampled_from(_SCRAPS) | st.binary(max_size=6) | st.just(text[start : start + length] * 2)
        )
        end = len(text) if draw(st.integers(0, 9)) == 0 else start + length
        text = text[:start] + scrap + text[end:]
    return text


@pytest.fixture
def refuse_malformed(tmp_path: Path) -> Callable[[Importer, Mapping[str, bytes], Sequence[str]], None]:
    """A function that damages files of a source in 200 ways and sees that each is refused as it must be."""

    def refuse(importer: Importer, files: Mapping[str, bytes], damaged: Sequence[str]) -> None:
        source, raw = tmp_path / "source", tmp_path / "raw"
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
        options = ImportOptions(annotations_only=True, split="none")
        importer(source, raw, options)
        shutil.rmtree(raw)
        refused = 0

        @settings(
            max_examples=NUM_MALFORMED,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
        )
        @given(data=st.data())
        def refuse_one(data: st.DataObject) -> None:
            nonlocal refused
            name = data.draw(st.sampled_from(list(damaged)))
            content = data.draw(_edited(files[name]))
            (source / name).write_bytes(content)
            try:
                importer(source, raw, options)
            except UserError as error:
                message = str(error)
            else:
                message = ""
                shutil.rmtree(raw)
            finally:
                (source / name).write_bytes(files[name])
            assert [path.name for path in tmp_path.iterdir()] == ["source"]
            assume(message)
            assert re.search(rf"{re.escape(Path(name).name)}:\d+: ", message), message
            assert "expected" in message
            assert "\n" not in message
            refused += 1

        refuse_one()
        assert refused >= NUM_MALFORMED

    return refuse
