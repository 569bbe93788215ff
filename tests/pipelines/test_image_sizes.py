from __future__ import annotations

import pytest

from lstfe.errors import UserError
from pipelines.image_sizes import read_image_size


@pytest.mark.parametrize(
    "text", ["", "1080", "1080x", "0x640", "axb", "640*480", "480x640x3", "480x640\n", "٤٨x64"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--image-size .*: expected HEIGHTxWIDTH in pixels, like 480x640"):
        read_image_size(text)


def test_sizes_are_height_and_width() -> None:
    assert read_image_size("1080x1920") == read_image_size("1080X1920") == (1080, 1920)
