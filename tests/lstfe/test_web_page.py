"""Parts of pages."""

from __future__ import annotations

import base64

from lstfe.web_page import clip, data_uri, document, picture, table


def test_a_page_without_parts_has_its_title_as_text() -> None:
    page = document("a < b", [])
    assert page.startswith("<!doctype html>")
    assert "<title>a &lt; b</title>" in page
    assert 'name="viewport"' in page


def test_a_table_without_rows_is_its_header() -> None:
    assert "<tbody></tbody>" in table(["name", "value"], [], caption="c")


def test_the_first_cell_of_a_row_is_its_header_and_the_others_are_numbers() -> None:
    found = table(["name", "value"], [["a", "1"]], caption="c")
    assert '<tr><th scope="row">a</th><td class="number">1</td></tr>' in found
    assert 'class="number"' not in table(["name", "value"], [["a", "b"]], caption="c", numbers=False)


def test_content_lies_inside_of_its_address() -> None:
    address = data_uri(b"\x00\xff", "image/jpeg")
    assert base64.b64decode(address.removeprefix("data:image/jpeg;base64,")) == b"\x00\xff"


def test_pictures_and_clips_say_in_words_what_they_show() -> None:
    assert 'alt="&quot;x&quot; &amp; y"' in picture(b"", '"x" & y')
    assert 'aria-label="&lt;x&gt;"' in clip(b"", "<x>")
