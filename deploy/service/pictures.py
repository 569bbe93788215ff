"""One frame of a stream: a JPEG or PNG from somebody else, decoded within limits."""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from deploy.service.decoder import check_size
from lstfe.errors import UserError
from lstfe.types import ByteArray

_FORMATS = ("JPEG", "PNG")


class PictureError(UserError):
    """A message is not a picture that can be decoded."""


def decode_picture(content: bytes, *, max_side_px: int, max_frame_px: int) -> ByteArray:
    """Decode a JPEG or PNG -> (H, W, 3) uint8 RGB; sizes are checked before a pixel is decoded.

    Raises PictureError for what cannot be decoded, LimitError for what is larger than allowed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                check_size("frame", *picture.size, max_side_px=max_side_px, max_frame_px=max_frame_px)
                if picture.mode.startswith(("I", "F")):
                    raise PictureError(
                        f"a frame has pixels of mode {picture.mode}, expected 8 bits a channel"
                    )
                if picture.format == "JPEG" and picture.mode in ("L", "RGB"):
                    return np.asarray(simplejpeg.decode_jpeg(content, colorspace="RGB"), np.uint8)
                return np.asarray(picture.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        if isinstance(error, UserError):
            raise
        raise PictureError("a frame cannot be decoded, expected a whole JPEG or PNG picture") from None
