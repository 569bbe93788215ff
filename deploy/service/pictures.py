"""One frame of a stream: a JPEG or PNG from somebody else, decoded within limits."""

from __future__ import annotations

import io
import struct

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from deploy.service.decoder import LimitError, check_size
from lstfe.errors import UserError
from lstfe.types import ByteArray

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_PNG_SIZE = struct.Struct(">16xII")  # of the first chunk, which must be IHDR


class PictureError(UserError):
    """A message is not a picture that can be decoded."""


def decode_picture(content: bytes, *, max_side_px: int, max_frame_px: int) -> ByteArray:
    """Decode a JPEG or PNG -> (H, W, 3) uint8 RGB; sizes are checked before a pixel is decoded.

    Raises PictureError for what cannot be decoded, LimitError for what is larger than allowed.
    """
    try:
        width, height, is_plain_jpeg = _read_header(content)
        check_size("frame", width, height, max_side_px=max_side_px, max_frame_px=max_frame_px)
        if is_plain_jpeg:
            return np.asarray(simplejpeg.decode_jpeg(content, colorspace="RGB"), np.uint8)
        return _decode_with_pillow(content)
    except UserError:
        raise
    except Image.DecompressionBombError:  # Pillow has a limit of its own
        raise LimitError(f"frame: {width}x{height} pixels are too many; scale it down") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error):
        raise PictureError("a frame cannot be decoded, expected a whole JPEG or PNG picture") from None


def _read_header(content: bytes) -> tuple[int, int, bool]:
    """Return width, height, and whether it is a JPEG of one or three channels."""
    if content.startswith(_JPEG):
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
        return width, height, colorspace in ("Gray", "RGB", "YCbCr")
    if content.startswith(_PNG):
        return *_PNG_SIZE.unpack_from(content), False
    raise PictureError("a message is no picture, expected a whole JPEG or PNG picture")


def _decode_with_pillow(content: bytes) -> ByteArray:
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as picture:
        if picture.mode.startswith(("I", "F")):
            raise PictureError(f"a frame has pixels of mode {picture.mode}, expected 8 bits a channel")
        return np.asarray(picture.convert("RGB"), np.uint8)
