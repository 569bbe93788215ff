"""The page in a real browser, against a real service; skipped where there is no Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.service.page import PAGE_POLICY, watch_page

TOKEN = "a-token-of-the-first-client"
PHONE, DESK = 390, 1200


def test_the_page_loads_nothing_from_elsewhere_and_runs_only_its_own_script(
    serve: Callable[..., Any],
) -> None:
    answer = serve().client.get("/")
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert answer.text == watch_page()
    assert answer.text.count("<script") == 1
    for outside in ("http:", "https:", "//cdn", "url(", "@import"):
        assert outside not in answer.text
    assert "unsafe" not in PAGE_POLICY


@pytest.fixture
def child(serve_child: Callable[..., Any], bundle_dir: Path) -> Any:
    """A service with a browser's answers in reach."""
    return serve_child("--bundle", bundle_dir, drain_s=0)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_fits_and_has_nothing_to_complain_about(
    child: Any, browser: Any, width: int, is_dark: bool
) -> None:
    page = browser.open(f"{child.url}/", width=width, is_dark=is_dark)
    assert page.complaints() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.querySelectorAll('input, button')].every(e => e.labels?.length || e.textContent)"
    )
    colors = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (colors[0] == "rgb(255, 255, 255)") is not is_dark
    assert {url.removeprefix(child.url) for url in page.requests()} == {"/", "/readyz"}
    docs = browser.open(f"{child.url}/docs", width=width, is_dark=is_dark)
    assert docs.complaints() == []
    assert docs.evaluate("document.documentElement.scrollWidth") <= width


def settled(page: Any, condition: str, *, seconds: int = 60) -> Any:
    """Wait in the page until an expression is true, and return it."""
    return page.evaluate(
        f"""new Promise((resolve, reject) => {{
            const end = Date.now() + {seconds * 1000};
            const look = () => {{
                const value = ({condition});
                if (value) resolve(value);
                else if (Date.now() > end) reject(document.body.innerText);
                else setTimeout(look, 50);
            }};
            look();
        }})"""
    )


def test_a_video_is_dropped_and_boxes_appear_over_it(
    child: Any, browser: Any, make_video: Callable[..., Path]
) -> None:
    page = browser.open(f"{child.url}/", width=PHONE)
    settled(page, "document.getElementById('model').textContent.startsWith('Model version')")
    page.choose_file("#file", make_video(12))
    settled(page, "document.getElementById('status').textContent === 'Done: 12 frames.'")
    assert page.evaluate("document.getElementById('progress').value") == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    found = "document.getElementById('found').textContent"
    drawn = """(() => {
        const canvas = document.getElementById('boxes');
        if (!canvas.width) return 0;
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return pixels.filter((value, place) => place % 4 === 3 && value > 0).length;
    })()"""
    set_threshold = """((value) => {
        const slider = document.getElementById('threshold');
        slider.value = value;
        slider.dispatchEvent(new Event('input'));
        return true;
    })"""
    assert page.evaluate(f"{set_threshold}(0)")
    total = page.evaluate(found).split()
    assert total[0] == total[-3] != "0"
    assert page.complaints() == []  # later ones are of this test, which reads the canvas back
    if page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')"):
        assert settled(page, drawn) > 50
        page.evaluate(f"{set_threshold}(1)")
        assert settled(page, f"{drawn} === 0")
    assert page.evaluate("document.getElementById('save').disabled") is False
    assert all(url.startswith((child.url, "blob:")) for url in page.requests())


def test_a_file_that_is_no_video_is_said_to_be_none(child: Any, browser: Any, tmp_path: Path) -> None:
    page = browser.open(f"{child.url}/", width=DESK)
    (tmp_path / "notes.mp4").write_text("no video")
    page.choose_file("#file", tmp_path / "notes.mp4")
    text = settled(page, "document.querySelector('#status.bad')?.textContent")
    assert "notes: cannot be opened" in text


def test_a_token_is_asked_for_where_one_is_needed(
    serve_child: Callable[..., Any], bundle_dir: Path, browser: Any, make_video: Callable[..., Path]
) -> None:
    child = serve_child("--bundle", bundle_dir, tokens=TOKEN, drain_s=0)
    page = browser.open(f"{child.url}/", width=DESK)
    settled(page, "!document.getElementById('token-row').hidden")
    page.choose_file("#file", make_video(2))
    assert "a bearer token is needed" in settled(page, "document.querySelector('#status.bad')?.textContent")
    page.evaluate(f"document.getElementById('token').value = '{TOKEN}'")
    page.choose_file("#file", make_video(3, name="another"))
    settled(page, "document.getElementById('status').textContent === 'Done: 3 frames.'")
