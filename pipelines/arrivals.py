"""New data: what has arrived since the last retraining, and the data set that grows by it.

    data/raw/NAME/                          the raw data set of params.yaml; whatever changes in it is new data
    data/raw/NAME/annotations/ITEM.json     beside train, val, test, all: rows of new videos (COCO-VID)
    data/incoming/NAME/ITEM/                one delivery: any layout that `lstfe data import` or `prepare` reads

All that arrives trains. Validation and test stay as they are: scores of yesterday and of today are of the same frames.
Nothing here writes into these folders; the grown data set is built elsewhere, from all of them, each time alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import numpy as np

from lstfe.data.coco_video import VideoAnnotations, load_annotations, save_annotations
from lstfe.data.columns import Layout, Rows
from lstfe.data.entries import IMAGES, OBJECTS
from lstfe.data.folders import REPORT_NAME
from lstfe.data.importers.coco_video import FOLDERS
from lstfe.data.raw import ImportOptions
from lstfe.data.splits import SPLITS, UNSPLIT, annotation_files
from lstfe.errors import UserError
from lstfe.types import IntArray
from lstfe.whole_files import new_file
from pipelines.identity import file_md5
from pipelines.paths import RAW
from pipelines.stage import output_of_stage

INCOMING = Path("data/incoming")
_SEEN = Path(".work/retrain/seen.json")
_OWN_FILES = {f"{name}.json" for name in (*SPLITS, UNSPLIT)}
_Entry = TypeVar("_Entry")


class ArrivalError(UserError):
    """A delivery that cannot be taken in; the message names it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One delivery."""

    path: Path
    """A folder, or a COCO-VID file in the raw data set's own annotations."""
    format: str
    """Importer, as `lstfe data import` names it; `raw` for the layout of data/raw/NAME."""


@dataclass(frozen=True, slots=True)
class DataState:
    """What lies there now."""

    digest: str
    """Over names and contents of all files; empty where there is no data."""
    newest: float
    """When a file was last changed or moved here, seconds since 1970."""
    num_files: int


def is_as_made(root: Path, name: str) -> bool:
    """Return whether a stage writes the data set and nobody has changed it since."""
    found = output_of_stage(root, RAW / name)
    return found is not None and found[1] != "modified"


def data_state(root: Path, name: str) -> DataState:
    """Return the state of a data set with its deliveries; what a stage writes counts only where somebody changed it.

    Contents are read again only where a file's size, time or number in the file system changed.
    """
    folders = [root / INCOMING / name]
    if not is_as_made(root, name):
        folders.append(root / RAW / name)
    files = sorted(path for folder in folders for path in _files(folder))
    known = _read_seen(root / _SEEN)
    seen: dict[str, list[object]] = {}
    digest, newest = hashlib.md5(usedforsecurity=False), 0.0
    for path in files:
        stat, key = path.stat(), path.relative_to(root).as_posix()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        before = known.get(key, [])
        content = str(before[3]) if before[:3] == stamp else file_md5(path)
        seen[key] = [*stamp, content]
        digest.update(f"{key}\n{content}\n".encode())
        newest = max(newest, stat.st_mtime, stat.st_ctime)
    if seen != known:
        (root / _SEEN).parent.mkdir(parents=True, exist_ok=True)
        with new_file(root / _SEEN) as partial:
            partial.write_text(json.dumps(seen), encoding="utf-8")
    return DataState(digest.hexdigest() if files else "", newest, len(files))


def is_settled(state: DataState, settle_seconds: float) -> bool:
    """Return whether nothing has changed for so long that nobody can still be copying."""
    return time.time() - state.newest >= settle_seconds


def find_arrivals(root: Path, name: str) -> list[Arrival]:
    """Return the deliveries in order of their names; ArrivalError for one whose layout is unknown."""
    annotations = root / RAW / name / "annotations"
    beside = [path for path in sorted(annotations.glob("*.json")) if path.name not in _OWN_FILES]
    folder = root / INCOMING / name
    delivered = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [Arrival(path, "coco-video") for path in beside]
    for path in delivered:
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            raise ArrivalError(
                f"{path}: a loose file, expected a folder a delivery ({folder}/ITEM/ with videos and annotations)"
            )
        found.append(Arrival(path, detect_format(path)))
    return found


def detect_format(folder: Path) -> str:
    """Return which importer reads a folder, by what lies in it; ArrivalError where none does."""
    if any((folder / "annotations" / name).is_file() for name in _OWN_FILES) and (folder / "videos").is_dir():
        return "raw"
    if (folder / "Annotations" / "VID").is_dir():
        return "imagenet-vid"
    if any(folder.rglob("gt/gt.txt")):
        return "mot"
    if any(path.name in _OWN_FILES for path in folder.rglob("*.json")):
        return "coco-video"
    for path in sorted(folder.rglob("*.xml")):
        head = path.read_bytes()[:2000]
        return "cvat" if b"<annotations" in head else "voc"
    if len(list(folder.rglob("*.json"))) == 1:
        return "coco-video"
    if any(folder.rglob("*.txt")):
        return "fl-drones"
    raise ArrivalError(
        f"{folder}: no annotations that are known, expected one of the layouts of docs/data.md (raw data set, "
        "coco-video, mot, cvat, voc, imagenet-vid, fl-drones)"
    )


def grow(source: Path, arrivals: Sequence[Arrival], destination: Path) -> dict[str, list[str]]:
    """Write the data set `source` with all arrivals in its training split; return arrival -> names of its videos.

    `destination` is new. Raises ArrivalError where a delivery has categories that the data set lacks, or a video's
    name that is taken (the same video again is left out), and whatever its importer finds wrong.
    """
    files = annotation_files(source)
    split = UNSPLIT if UNSPLIT in files and "train" not in files else "train"
    if split not in files:
        raise ArrivalError(f"{source / 'annotations'}: no train.json or all.json for what arrives to go into")
    shutil.rmtree(destination, ignore_errors=True)
    copy_tree(source, destination)
    for path in (destination / "annotations").glob("*.json"):
        if path.name not in _OWN_FILES:
            path.unlink()
    taken: dict[str, list[str]] = {}
    if not arrivals:
        return taken
    names = {
        video.name: destination / video.file_name
        for path in files.values()
        for video in load_annotations(path).videos
    }
    train = load_annotations(files[split])
    with tempfile.TemporaryDirectory(dir=destination.parent) as temporary:
        for number, arrival in enumerate(arrivals):
            imported = Path(temporary) / str(number)
            new = _without_known(_import(arrival, source, imported), imported, names, arrival)
            train = merged(train, new, where=str(arrival.path))
            for video in new.videos:
                shutil.move(imported / video.file_name, destination / video.file_name)
                names[video.name] = destination / video.file_name
            taken[arrival.path.name] = [video.name for video in new.videos]
    with new_file(destination / "annotations" / f"{split}.json") as partial:
        save_annotations(train, partial)
    report = (
        json.loads((destination / REPORT_NAME).read_text()) if (destination / REPORT_NAME).is_file() else {}
    )
    with new_file(destination / REPORT_NAME) as partial:
        partial.write_text(json.dumps({**report, "arrived": taken}, indent=1) + "\n", encoding="utf-8")
    return taken


def merged(base: VideoAnnotations, added: VideoAnnotations, *, where: str) -> VideoAnnotations:
    """Return the annotations of both, the added ones under new ids; ArrivalError for categories that `base` lacks."""
    ids = {category.name: category.id for category in base.categories}
    unknown = [category.name for category in added.categories if category.name not in ids]
    if unknown:
        raise ArrivalError(
            f"{where}: category {unknown[0]!r}, expected one of {', '.join(ids)}; rename it, or add the category to "
            "every split of the data set"
        )
    categories = {category.id: ids[category.name] for category in added.categories}
    videos = _renumbered(base.video_ids, added.video_ids)
    images, objects = added.image_rows.integers.copy(), added.object_rows.integers.copy()
    new_images = _renumbered(base.image_rows.integers[:, 0], images[:, 0])
    images[:, 0] = _looked_up(new_images, images[:, 0])
    images[:, 1] = _looked_up(videos, images[:, 1])
    objects[:, 0] = list(_renumbered(base.object_rows.integers[:, 0], objects[:, 0]).values())
    objects[:, 1] = _looked_up(new_images, objects[:, 1])
    objects[:, 2] = _looked_up(videos, objects[:, 2])
    objects[:, 3] = _looked_up(categories, objects[:, 3])
    return VideoAnnotations(
        videos=[*base.videos, *(dataclasses.replace(video, id=videos[video.id]) for video in added.videos)],
        images=_joined(IMAGES, base.image_rows, images, added.image_rows),
        annotations=_joined(OBJECTS, base.object_rows, objects, added.object_rows),
        categories=list(base.categories),
        corner_pixels_inside=base.corner_pixels_inside,
    )


def _renumbered(taken: IntArray, ids: IntArray) -> dict[int, int]:
    """Return id -> new id, past all that are taken."""
    first = int(taken.max(initial=0)) + 1
    return {number: first + place for place, number in enumerate(ids.tolist())}


def _looked_up(table: Mapping[int, int], ids: IntArray) -> list[int]:
    return [table[number] for number in ids.tolist()]


def _joined(
    layout: Layout[_Entry], base: Rows[_Entry], integers: IntArray, added: Rows[_Entry]
) -> Rows[_Entry]:
    return Rows(
        layout, np.concatenate([base.integers, integers]), np.concatenate([base.floats, added.floats])
    )


def _import(arrival: Arrival, base: Path, destination: Path) -> VideoAnnotations:
    """Turn a delivery into a raw data set of its own, without a split, and return its annotations."""
    source, data_format, videos = arrival.path, arrival.format, None
    if source.is_file():
        videos = base / "videos"
    elif data_format == "raw":
        data_format, videos = "coco-video", source / "videos"
    elif data_format == "coco-video" and not _has_split_files(source):
        [source] = source.rglob("*.json")
    module = data_format.replace("-", "_")
    importer = getattr(import_module(f"lstfe.data.importers.{module}"), f"import_{module}")
    importer(source, destination, ImportOptions(split="none", videos=videos))
    return load_annotations(destination / "annotations" / f"{UNSPLIT}.json")


def _has_split_files(folder: Path) -> bool:
    return any((folder / place / name).is_file() for place in FOLDERS for name in _OWN_FILES)


def _without_known(
    new: VideoAnnotations, imported: Path, known: Mapping[str, Path], arrival: Arrival
) -> VideoAnnotations:
    """Leave out videos that the data set has already; ArrivalError where only the name is the same."""
    again = set()
    for video in new.videos:
        if video.name not in known:
            continue
        if _content(imported / video.file_name) != _content(known[video.name]):
            raise ArrivalError(
                f"{arrival.path}: video {video.name!r} is another one than the data set has under that name; "
                "rename the new one"
            )
        again.add(video.id)
    if not again:
        return new
    kept = new.with_images(~np.isin(new.image_rows.integers[:, 1], list(again)))
    return dataclasses.replace(kept, videos=[video for video in new.videos if video.id not in again])


def _content(video: Path) -> list[str]:
    """Return hashes of a video's file, or of its pictures in order."""
    return [file_md5(path) for path in (sorted(_files(video)) if video.is_dir() else [video])]


def copy_tree(source: Path, destination: Path) -> None:
    """Copy a folder, at no cost where the file system shares blocks; never by links: they would share changes."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    reflink = ["--reflink=auto"] if sys.platform == "linux" else []
    command = ["cp", "-R", "-L", *reflink, f"{source}/.", str(destination)]
    destination.mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{source}: not copied to {destination}: {done.stderr.strip()[:300]}")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files that are data: none that are hidden, nor those of hidden folders."""
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _read_seen(path: Path) -> dict[str, list[object]]:
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(seen) if isinstance(seen, dict) else {}
