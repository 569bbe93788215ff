from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from lstfe.data.check.page import write_page
from lstfe.data.check.report import CheckReport

Content = dict[str, dict[str, Any]]
MAX_BYTES = 2_000_000


class _Tags(HTMLParser):
    """Which tags stay open, and how many pictures there are."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        elif tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parse(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_a_clean_data_set_shows_its_videos_and_no_findings(check: Callable[..., CheckReport]) -> None:
    page = write_page(check())
    assert len(_parse(page).sources) == 3
    assert "<h2>Findings</h2>" not in page


def test_the_page_needs_nothing_but_itself(check: Callable[..., CheckReport]) -> None:
    page = write_page(check())
    assert all(source.startswith("data:image/jpeg;base64,") for source in _parse(page).sources)
    assert re.findall(r"url\(|https?:|<script|href=(?!\"data:,\")", page) == []
    assert len(page) < MAX_BYTES


def test_a_finding_is_shown_with_its_frames(check: Callable[..., CheckReport]) -> None:
    def change(content: Content, raw: Path) -> None:
        content["train"]["annotations"][5]["bbox"] = [76, 44, 16, 16]

    page = write_page(check(change))
    assert page.index("<h2>Findings</h2>") < page.index("<h2>track_jump: ") < page.index("<h2>Videos</h2>")
    assert page.count("a, frame 4</figcaption>") == page.count("a, frame 5</figcaption>") == 1
    assert len(_parse(page).sources) == 3 + 2


def test_names_are_text_and_never_markup(check: Callable[..., CheckReport]) -> None:
    def change(content: Content, raw: Path) -> None:
        content["val"]["videos"][0]["name"] = "<b>&"

    page = write_page(check(change))
    _parse(page)
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;, 10 frames" in page
