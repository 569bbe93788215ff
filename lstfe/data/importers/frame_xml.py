"""One XML file a frame, as PASCAL VOC and ImageNet have them.

    <annotation>
      <size><width/><height/></size>
      <object> <trackid/>? <name/> <bndbox><xmin/><ymin/><xmax/><ymax/></bndbox> <occluded/>? <generated/>?
               <difficult/>? </object> ...
    </annotation>

Everything else is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lstfe.data.importers.xml_elements import Element, read_root

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MAX_TRACK = 10**9


@dataclass(frozen=True, slots=True)
class FrameObject:
    """One <object>; `corners` are xmin, ymin, xmax, ymax as written."""

    name: str
    corners: tuple[float, float, float, float]
    track: int | None
    is_occluded: bool
    is_generated: bool
    is_difficult: bool


@dataclass(frozen=True, slots=True)
class FrameXml:
    """One file; `image_size` is (height, width), 0 each where the file does not say it."""

    image_size: tuple[int, int]
    objects: list[FrameObject]


def read_frame_xml(path: Path) -> FrameXml:
    """Read one file; AnnotationError names the line that breaks the grammar."""
    root = read_root(path, "annotation")
    size = root.find("size")
    objects = [_read_object(child) for child in root.children if child.tag == "object"]
    return FrameXml(size.size() if size is not None else (0, 0), objects)


def _read_object(element: Element) -> FrameObject:
    bounds = element.child("bndbox")
    xmin, ymin, xmax, ymax = (bounds.child(tag).number() for tag in _CORNERS)
    track = element.find("trackid")
    return FrameObject(
        element.child("name").name(),
        (xmin, ymin, xmax, ymax),
        None if track is None else track.integer(low=0, high=_MAX_TRACK),
        *(_flag(element, tag) for tag in ("occluded", "generated", "difficult")),
    )


def _flag(element: Element, tag: str) -> bool:
    found = element.find(tag)
    return found is not None and bool(found.integer(low=0, high=1))
