from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.service.decoder import LimitError
from deploy.service.pictures import PictureError, decode_picture
from lstfe.types import ByteArray

LIMITS: dict[str, Any] = {"max_side_px": 100, "max_frame_px": 5000}


def picture(file_format: str, mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    Image.fromarray(noise).resize(size).convert(mode).save(out, file_format)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_any_mode_become_rgb(mode: str) -> None:
    frame = decode_picture(picture("JPEG", mode), **LIMITS)
    assert (frame.shape, frame.dtype) == ((40, 60, 3), np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA", "1"])
def test_pngs_of_any_mode_become_rgb(mode: str) -> None:
    frame: ByteArray = decode_picture(picture("PNG", mode), **LIMITS)
    assert (frame.shape, frame.dtype) == ((40, 60, 3), np.uint8)


def test_a_png_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    np.testing.assert_array_equal(decode_picture(out.getvalue(), **LIMITS), pixels)


@pytest.mark.parametrize("size", [(101, 10), (10, 101), (80, 80), (65535, 65535), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_says_it_is_large_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(
        LimitError, match=f"frames of {size[0]}x{size[1]} pixels, expected at most 100 a side"
    ):
        decode_picture(png_header(*size), **LIMITS)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8\xff", b"hello", picture("GIF"), picture("BMP"), picture("JPEG")[:300], picture("PNG")[:300],
     png_header(50, 50)],
    ids=["empty", "three bytes", "text", "gif", "bmp", "half a jpeg", "half a png", "too few pixels"],
)  # fmt: skip
def test_what_is_no_whole_jpeg_or_png_is_refused(content: bytes) -> None:
    with pytest.raises(PictureError, match="expected a whole JPEG or PNG"):
        decode_picture(content, **LIMITS)


def test_sixteen_bits_a_channel_are_refused() -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(out, "PNG")
    with pytest.raises(PictureError, match="expected 8 bits"):
        decode_picture(out.getvalue(), **LIMITS)
