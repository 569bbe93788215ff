"""The report as text, and as a browser shows it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lstfe.data.coco_video import CategoryEntry, VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation.bootstrap import add_intervals
from lstfe.evaluation.presets import PROTOCOLS
from lstfe.evaluation.protocols import score, score_frames
from lstfe.evaluation.records import DetectionRecord, scored_frames
from lstfe.evaluation.report.page import write_report
from lstfe.evaluation.report.pictures import Footage

Scene = tuple[VideoAnnotations, list[DetectionRecord]]
PHONE, DESK = 390, 1280
_WITHOUT_END = {"meta", "img", "br", "wbr", "link"}


class _Tags(HTMLParser):
    """Which tags stay open, the text of cells, and what media are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.media: list[dict[str, str | None]] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("img", "video"):
            self.media.append(dict(attrs) | {"tag": tag})
        if tag not in _WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def parse(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def report(
    scene: Scene, folder: Path, store: FrameStore | None = None, num_pictures: int = 12, **options: Any
) -> str:
    scored = scored_frames(*scene)
    scores = add_intervals(score_frames(scored, PROTOCOLS, split="test"), scored, resamples=50, seed=0)
    if store is not None:
        options["footage"] = Footage(*scene, store, num_pictures)
    return write_report(folder / "report.html", scored, scores, **options).read_text(encoding="utf-8")


@pytest.fixture
def scene(annotations: VideoAnnotations) -> Scene:
    """Half of the objects found, one a second time, and three false detections."""
    names = {video.id: video.name for video in annotations.videos}
    frames = {image.id: image.frame_id for image in annotations.images}
    found = [
        DetectionRecord(names[e.video_id], frames[e.image_id], e.bbox, 0.9 - 0.01 * e.id, "drone")
        for e in annotations.annotations[::2]
    ]
    again = dataclasses.replace(found[0], score=0.2)
    false = [DetectionRecord("left", i, (3.0, 3.0, 9.0, 9.0), 0.5 + i / 10, "drone") for i in range(3)]
    return annotations, [*found, again, *false]


@pytest.fixture(scope="session")
def written(
    prepared_dir: Path, random_scene: Callable[..., Scene], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A report with everything in it: two classes, pictures and clips."""
    from lstfe.data.coco_video import load_annotations

    folder = tmp_path_factory.mktemp("report")
    annotations = load_annotations(prepared_dir / "annotations" / "val.json")
    two_classes = [CategoryEntry(1, "drone"), CategoryEntry(2, "bird of a very long name indeed")]
    entries = [dataclasses.replace(entry, category_id=1 + entry.id % 2) for entry in annotations.annotations]
    annotations = dataclasses.replace(annotations, annotations=entries, categories=two_classes)
    false = [DetectionRecord("left", i, (3.0, 3.0, 9.0, 9.0), 0.5 + i / 10, "drone") for i in range(3)]
    report((annotations, false), folder, store=FrameStore(prepared_dir / "frames"), num_pictures=4)
    return folder / "report.html"


# ------------------------------------------------------------------------------------------------ as text


def test_without_objects_and_detections_there_is_a_report_too(
    annotations: VideoAnnotations, prepared_dir: Path, tmp_path: Path
) -> None:
    nothing = dataclasses.replace(annotations, annotations=[])
    page = report((nothing, []), tmp_path, store=FrameStore(prepared_dir / "frames"))
    assert parse(page).media == []
    assert "None: every object was found, and nothing else." in page


def test_without_frames_the_report_says_that_there_are_no_pictures(scene: Scene, tmp_path: Path) -> None:
    page = report(scene, tmp_path)
    assert parse(page).media == []
    assert "The frames were not given, so there are no pictures here." in page


def test_the_protocols_stand_side_by_side_with_intervals_and_counts(scene: Scene, tmp_path: Path) -> None:
    page = report(scene, tmp_path)
    scores = score(*scene, PROTOCOLS)
    assert [page.index(f'<th scope="col" class="number">{name}</th>') for name in PROTOCOLS]
    completed = add_intervals(scores, scored_frames(*scene), resamples=50, seed=0)
    for name, figures in completed.items():
        for figure in PROTOCOLS[name].figures:
            if figures[figure] is not None:
                cell = f"{figures[figure]:.3f}"
                if (ends := figures[f"{figure}_interval"]) is not None:
                    cell += f'<br><span class="faint">{ends[0]:.3f}&ndash;<wbr>{ends[1]:.3f}</span>'
                assert f'<td class="number">{cell}</td>' in page
    assert "Split test: 2 videos, 14 frames, 14 objects, 11 detections." in page
    assert "tiny (0-16 px), 14 objects" in page


def test_every_error_is_counted_with_what_it_costs(scene: Scene, tmp_path: Path) -> None:
    page = report(scene, tmp_path)
    row = re.search(r'<tr><th scope="row">duplicate.*?</tr>', page)
    assert row is not None
    assert re.findall(r'<td class="number">([^<]*)', row[0])[:2] == ["0", "1"]  # its score is 0.2


def test_misses_are_shown_as_strips_and_as_clips_with_words(
    scene: Scene, prepared_dir: Path, tmp_path: Path
) -> None:
    page = report(scene, tmp_path, store=FrameStore(prepared_dir / "frames"), num_pictures=2)
    strip, clip, *_ = media = parse(page).media
    assert [item["tag"] for item in media] == ["img", "video"] * 2
    assert (strip["alt"] or "").startswith("drone 14x10 px, not found at IoU 0.5: ")
    assert (clip["aria-label"] or "").startswith("clip around drone 14x10 px")
    assert "controls" in clip


def test_the_page_needs_nothing_but_itself_and_is_always_the_same(
    scene: Scene, prepared_dir: Path, tmp_path: Path
) -> None:
    store = FrameStore(prepared_dir / "frames")
    page = report(scene, tmp_path, store=store, num_pictures=2)
    sources = [source for item in parse(page).media if (source := item["src"])]
    assert all(source.startswith(("data:image/jpeg;base64,", "data:video/mp4;base64,")) for source in sources)
    assert re.findall(r"https?:|<script|url\(|@import", page) == []
    assert page == report(scene, tmp_path / "again", store=store, num_pictures=2)


def test_one_class_needs_no_table_of_classes_and_two_do(
    scene: Scene, random_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    assert not {"Classes", "Confusion"} & set(parse(report(scene, tmp_path)).headings)
    page = report(random_scene(0), tmp_path)
    assert {"Classes", "Confusion"} <= set(parse(page).headings)
    assert page.count('<th scope="row">bird</th>') == len(PROTOCOLS) + 1


def test_names_are_text_and_never_markup(scene: Scene, tmp_path: Path) -> None:
    annotations, records = scene
    odd = dataclasses.replace(annotations, categories=[CategoryEntry(1, "<b>&")])
    page = report((odd, [dataclasses.replace(r, category="<b>&") for r in records]), tmp_path, title="<i>")
    parse(page)
    assert "<b>" not in page
    assert "<h1>&lt;i&gt;</h1>" in page


def test_scores_beyond_one_get_an_axis_of_their_own(scene: Scene, tmp_path: Path) -> None:
    annotations, records = scene
    page = report((annotations, [dataclasses.replace(r, score=10 * r.score) for r in records]), tmp_path)
    assert "score, 0 = 0, 1 = 8.9" in page


# ------------------------------------------------------------------------------------------- in a browser


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_browser_has_nothing_to_complain_about_and_asks_for_nothing(
    written: Path, browser: Any, width: int, is_dark: bool
) -> None:
    page = browser.open(written, width=width, is_dark=is_dark)
    assert page.complaints() == []
    assert page.requests() == [written.as_uri()]


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_is_wider_than_the_window(written: Path, browser: Any, width: int) -> None:
    page = browser.open(written, width=width)
    assert page.evaluate("window.innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    names = "[...document.querySelectorAll('tbody th')].map(e => e.getBoundingClientRect())"
    assert page.evaluate(f"{names}.every(box => box.width > 80 && box.height < 160)"), "a column is squeezed"
    # What scrolls for itself may be wider inside.
    inside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.wide, svg'))"
    assert page.evaluate(f"Math.max(...{inside}.map(e => e.getBoundingClientRect().right))") <= width


def test_tables_charts_and_pictures_are_there_and_have_names(written: Path, browser: Any) -> None:
    page = browser.open(written, width=DESK)
    assert page.evaluate("document.querySelectorAll('table').length") == 3 + len(PROTOCOLS)
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.querySelector('thead th[scope=col]'))"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('td')].every(c => c.parentNode.querySelector('th[scope=row]'))"
    )
    charts = "[...document.querySelectorAll('svg.chart')]"
    assert page.evaluate(f"{charts}.length") > len(PROTOCOLS)
    assert page.evaluate(
        f"{charts}.every(c => c.getAttribute('aria-label') && c.getBoundingClientRect().height > 150)"
    )
    assert page.evaluate("[...document.images].length") == 3
    assert page.evaluate(
        "[...document.images].every(i => i.complete && i.naturalWidth > 900 && i.alt.length > 20)"
    )


def test_text_can_be_read_on_its_ground_light_and_dark(written: Path, browser: Any) -> None:
    grounds = []
    for is_dark in (False, True):
        page = browser.open(written, width=DESK, is_dark=is_dark)
        style = "getComputedStyle(document.body)"
        ground, text = (page.evaluate(f"{style}.{name}") for name in ("backgroundColor", "color"))
        faint = page.evaluate("getComputedStyle(document.querySelector('.faint')).color")
        assert contrast(ground, text) >= 7
        assert contrast(ground, faint) >= 4.5
        grounds.append(ground)
    assert grounds[0] != grounds[1]


def test_a_clip_plays(written: Path, browser: Any) -> None:
    page = browser.open(written, width=DESK)
    if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')"):
        pytest.skip("this browser has no H.264; Debian's chromium and Google Chrome have it")
    width = page.evaluate(
        """new Promise((resolve, reject) => {
            const clip = document.querySelector('video');
            clip.ontimeupdate = () => { if (clip.currentTime > 0.2) resolve(clip.videoWidth) };
            clip.onerror = () => reject(clip.error.message);
            clip.play().catch(reject);
        })"""
    )
    assert width == 320
    assert page.complaints() == []


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours `rgb(r, g, b)`, as WCAG 2 defines it."""
    lights = []
    for color in (first, second):
        shares = [int(number) / 255 for number in re.findall(r"\d+", color)[:3]]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)
