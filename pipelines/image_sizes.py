"""Sizes of pictures as the command line has them."""

from __future__ import annotations

import re

from lstfe.errors import UserError


def read_image_size(text: str) -> tuple[int, int]:
    """Read what stands after `--image-size`, HEIGHTxWIDTH in pixels; raises UserError."""
    matched = re.fullmatch(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})", text)
    if matched is None:
        raise UserError(f"--image-size {text!r}: expected HEIGHTxWIDTH in pixels, like 480x640")
    return int(matched[1]), int(matched[2])
