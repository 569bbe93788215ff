"""ImageNet-VID, perhaps with the still images of DET -> raw data set.

SOURCE (or SOURCE/ILSVRC2015, SOURCE/ILSVRC) is the layout of ILSVRC2015:

    Data/VID/{train/PACK/VIDEO,val/VIDEO}/%06d.JPEG       Annotations/VID/.../%06d.xml, one a frame from 0
    Data/DET/train/.../IMAGE.JPEG                         Annotations/DET/train/.../IMAGE.xml
    ImageSets/ (or ImageSets/VID/, Lists/), each of these optional:
        VID_train_15frames.txt    train/PACK/VIDEO 1 KEY_FRAME LENGTH     one line a key frame, from 0
        VID_val_videos.txt        val/VIDEO 1 START LENGTH                one line a video, or one a frame;
                                  val/VIDEO/%06d 1                        also in this form
        DET_train_30classes.txt   train/.../IMAGE 1                       brings the images in, one frame each

Without a list all videos of Annotations/VID/{train,val} are taken. Key frames become the `vid_train_frames` of their
video, those that training takes as current frames; all frames stay in the data set. lstfe/data/importers/frame_xml.py
has the grammar of a file; names are WordNet numbers, of which the 30 of the challenge count. Corners count from 0 and
belong to the box.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstfe.data.faults import AnnotationError, fault
from lstfe.data.footage import probe_footage
from lstfe.data.importers.frame_xml import FrameXml, read_frame_xml
from lstfe.data.importers.grammar import MAX_FRAMES, check_frame, parse_integer, read_lines
from lstfe.data.raw import ImportOptions, RawObject, RawVideo, check_video_name, clip_objects, write_raw
from lstfe.data.splits import plan_splits
from lstfe.data.video import DEFAULT_FRAME_RATE, VideoInfo

CLASSES = {
    "n02691156": "airplane",
    "n02419796": "antelope",
    "n02131653": "bear",
    "n02834778": "bicycle",
    "n01503061": "bird",
    "n02924116": "bus",
    "n02958343": "car",
    "n02402425": "cattle",
    "n02084071": "dog",
    "n02121808": "domestic_cat",
    "n02503517": "elephant",
    "n02118333": "fox",
    "n02510455": "giant_panda",
    "n02342885": "hamster",
    "n02374451": "horse",
    "n02129165": "lion",
    "n01674464": "lizard",
    "n02484322": "monkey",
    "n03790512": "motorcycle",
    "n02324045": "rabbit",
    "n02509815": "red_panda",
    "n02411705": "sheep",
    "n01726692": "snake",
    "n02355227": "squirrel",
    "n02129604": "tiger",
    "n04468005": "train",
    "n01662784": "turtle",
    "n04530566": "watercraft",
    "n02062744": "whale",
    "n02391049": "zebra",
}
"""WordNet number -> name of the challenge's 30 classes, in its order."""

_LIST_FOLDERS = ("ImageSets", "ImageSets/VID", "Lists")
_PATH = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)+")


@dataclass(slots=True)
class _Entry:
    """A video (or an image of DET) as the lists and folders name it."""

    split: str
    path: str
    """Relative to Data/VID or Data/DET, without a suffix."""
    is_image: bool = False
    where: str = ""
    """File and line that name it first."""
    length: int | None = None
    listed: list[int] = field(default_factory=list)
    """Key frames of a training video, the frames of a validation video that its list has line by line."""


def import_imagenet_vid(source: Path, destination: Path, options: ImportOptions) -> dict[str, Any]:
    """Write a raw data set from ImageNet-VID, and return its report (counts by video)."""
    root = _find_root(source)
    entries: dict[str, _Entry] = {}
    for entry in _list_entries(root):
        name = check_video_name(entry.path.rsplit("/", 1)[-1], entry.where)
        if name in entries:
            raise AnnotationError(
                f"{entry.where}: {entry.path} and {entries[name].path} share a name, expected it once"
            )
        entries[name] = entry
    own = {name: (entry.split,) for name, entry in entries.items()}
    parts = plan_splits(options.split, list(entries), own=own)
    return write_raw(
        destination,
        (_import_entry(name, entries[name], root, options) for name in parts),
        parts,
        about={"format": "imagenet_vid", "split": options.split},
        options=options,
        categories=list(CLASSES.values()),
        corner_pixels_inside=True,
    )


def _find_root(source: Path) -> Path:
    for root in (source, source / "ILSVRC2015", source / "ILSVRC"):
        if (root / "Annotations" / "VID").is_dir():
            return root
    raise AnnotationError(f"{source}: holds no Annotations/VID, expected the layout of ILSVRC2015")


def _list_entries(root: Path) -> Iterator[_Entry]:
    for split, name, pattern in (
        ("train", "VID_train_15frames.txt", "train/*/*"),
        ("val", "VID_val_videos.txt", "val/*"),
    ):
        path = _find_list(root, name)
        if path is not None:
            yield from _read_video_list(path, split)
        else:
            base = root / "Annotations" / "VID"
            folders = sorted(folder for folder in base.glob(pattern) if folder.is_dir())
            yield from (
                _Entry(split, folder.relative_to(base).as_posix(), where=str(folder)) for folder in folders
            )
    images = _find_list(root, "DET_train_30classes.txt")
    if images is not None:
        for number, line in read_lines(images):
            where = f"{images}:{number}"
            yield _Entry("train", _split_line(line, where, (2,))[0], is_image=True, where=where, length=1)


def _find_list(root: Path, name: str) -> Path | None:
    return next((path for folder in _LIST_FOLDERS if (path := root / folder / name).is_file()), None)


def _read_video_list(path: Path, split: str) -> list[_Entry]:
    """Return the videos in the list's order; a validation video with one line is there as a whole."""
    entries: dict[str, _Entry] = {}
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        fields = _split_line(line, where, (2, 4))
        name, length = fields[0], None
        if len(fields) == 2:
            name, _, frame = name.rpartition("/")
            frame_id = parse_integer(frame, where, "a frame like 000000", low=0, high=MAX_FRAMES - 1)
        else:
            length = parse_integer(fields[3], where, "the video's length", low=1, high=MAX_FRAMES)
            frame_id = parse_integer(fields[2], where, "a frame counted from 0", low=0, high=length - 1)
        entry = entries.setdefault(name, _Entry(split, name, where=where, length=length))
        if entry.length != length:
            raise fault(where, length, f"the length {entry.length} again, as in the lines before")
        if frame_id in entry.listed:
            raise fault(where, line, "each frame once")
        entry.listed.append(frame_id)
    for entry in entries.values():
        if split == "val" and len(entry.listed) == 1:
            entry.listed.clear()
    return list(entries.values())


def _split_line(line: str, where: str, lengths: Sequence[int]) -> list[str]:
    fields = line.split()
    if len(fields) not in lengths or not _PATH.fullmatch(fields[0]):
        raise fault(where, line, f"a path and numbers, {' or '.join(map(str, lengths))} fields in all")
    return fields


def _import_entry(name: str, entry: _Entry, root: Path, options: ImportOptions) -> RawVideo:
    files = _annotation_files(entry, root)
    footage, info = None, None
    if not options.annotations_only:
        base = options.videos or root / "Data"
        footage = base / ("DET" if entry.is_image else "VID") / entry.path
        footage = footage.with_name(f"{footage.name}.JPEG") if entry.is_image else footage
        if not footage.exists():
            raise AnnotationError(f"{footage}: no such picture or folder, expected what {name} shows")
        info = probe_footage(footage)
    size = (info.height, info.width) if info is not None else (0, 0)
    length = info.num_frames if info is not None else max(entry.length or 0, max(files) + 1)
    if entry.length is not None and entry.length != length:
        raise AnnotationError(
            f"{entry.where}: found a length of {entry.length} for {entry.path}, expected its {length} frames"
        )
    counts = {"boxes_of_other_categories": 0, "boxes_occluded": 0, "boxes_generated": 0}
    objects: list[RawObject] = []
    for frame_id, path in files.items():
        check_frame(frame_id, length, f"{path}:1", name)
        content = read_frame_xml(path)
        if all(content.image_size) and all(size) and content.image_size != size:
            raise fault(
                f"{path}:1", content.image_size, f"the (height, width) {size} of the rest of the video"
            )
        size = size if all(size) else content.image_size
        objects += _objects(content, frame_id, counts)
    kept, clipped = clip_objects(objects, size)
    info = info or VideoInfo(size[1], size[0], length, DEFAULT_FRAME_RATE)
    frames = entry.listed if entry.split == "val" and entry.listed else list(files)
    counts["frames_without_annotation"] = length - len(files)
    return RawVideo(
        name,
        info,
        kept,
        footage,
        sorted(set(frames) & set(files)),
        counts={**clipped, **counts},
        vid_train_frames=sorted(entry.listed) if entry.split == "train" else (),
    )


def _annotation_files(entry: _Entry, root: Path) -> dict[int, Path]:
    """Return frame -> its file, ascending."""
    path = root / "Annotations" / ("DET" if entry.is_image else "VID") / entry.path
    if entry.is_image:
        file = path.with_name(f"{path.name}.xml")
        if not file.is_file():
            raise AnnotationError(
                f"{entry.where}: {file} does not exist, expected the annotation of the image"
            )
        return {0: file}
    files = {}
    for file in sorted(path.glob("*.xml")):
        files[parse_integer(file.stem, f"{file}:1", "a name like 000000.xml", low=0, high=MAX_FRAMES - 1)] = (
            file
        )
    if not files:
        raise AnnotationError(f"{entry.where}: {path} holds no annotation, expected 000000.xml and so on")
    return files


def _objects(content: FrameXml, frame_id: int, counts: dict[str, int]) -> list[RawObject]:
    objects = []
    for place, item in enumerate(content.objects):
        if item.name not in CLASSES:
            counts["boxes_of_other_categories"] += 1
            continue
        counts["boxes_occluded"] += item.is_occluded
        counts["boxes_generated"] += item.is_generated
        xmin, ymin, xmax, ymax = item.corners
        bbox = (xmin, ymin, xmax - xmin + 1, ymax - ymin + 1)
        track = place if item.track is None else item.track
        objects.append(RawObject(frame_id, bbox, CLASSES[item.name], track))
    return objects
