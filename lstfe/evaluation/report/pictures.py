"""The worst misses, as strips of frames and as clips."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation.misses import Miss, draw_miss, find_misses, miss_text, records_by_frame
from lstfe.evaluation.records import DetectionRecord
from lstfe.evaluation.report.clips import clip_around
from lstfe.web_page import clip, picture

_JPEG_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Footage:
    """What pictures are made of."""

    annotations: VideoAnnotations
    records: Sequence[DetectionRecord]
    store: FrameStore
    num_pictures: int
    frame_stride: int = 1


def show_misses(footage: Footage | None) -> Iterator[str]:
    """Yield the part of the page with the worst misses; without footage it says that there are no pictures."""
    if footage is not None and footage.num_pictures == 0:
        return
    yield "<h2>Worst misses</h2>"
    if footage is None:
        yield "<p>The frames were not given, so there are no pictures here.</p>"
        return
    misses = find_misses(
        footage.annotations,
        footage.records,
        num_misses=footage.num_pictures,
        frame_stride=footage.frame_stride,
    )
    if not misses:
        yield "<p>None: every object was found, and nothing else.</p>"
        return
    yield (
        '<p class="faint">Objects that were not found or only weakly, then false detections with high scores. Green: '
        "ground truth. Orange: detections and their scores. Red: the false detection.</p>"
    )
    by_frame = records_by_frame(footage.records)
    yield '<div class="misses">'
    yield from (_figure(miss, footage, by_frame) for miss in misses)
    yield "</div>"


def _figure(
    miss: Miss, footage: Footage, by_frame: Mapping[tuple[str, int], Sequence[DetectionRecord]]
) -> str:
    annotations, store = footage.annotations, footage.store
    said = f"{miss_text(miss)}: {miss.video}, frame {miss.frame_id}"
    file = io.BytesIO()
    strip = draw_miss(miss, annotations, by_frame, store, with_title=False)
    Image.fromarray(strip).save(file, "JPEG", quality=_JPEG_QUALITY)
    image = picture(file.getvalue(), f"{said}; the frame before, the frame, the frame after")
    moving = clip(clip_around(miss, annotations, by_frame, store), f"clip around {said}")
    return f"<figure><figcaption>{html.escape(said)}</figcaption>{image}{moving}</figure>"
