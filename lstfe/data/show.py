"""Look at a video of a raw data set: a preview with its boxes, and a contact sheet of its smallest objects."""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lstfe.data.coco_video import VideoAnnotations, VideoEntry, clip_bbox, load_annotations
from lstfe.data.contact_sheet import VideoObject, draw_crop, join_crops, pick_smallest
from lstfe.data.faults import AnnotationError
from lstfe.data.footage import read_as_annotated
from lstfe.data.splits import UNSPLIT, annotation_files
from lstfe.data.video import DEFAULT_FRAME_RATE, Frame, VideoError, VideoWriter
from lstfe.errors import UserError
from lstfe.visualize import append_caption, draw_instances
from lstfe.whole_files import new_file

NUM_CROPS = 30
"""Objects on a contact sheet, at most."""
_NUM_NEAREST = 5
_FRAME_RATES = (0.1, 1000.0)  # what is outside of them, players do not play


@dataclass(slots=True)
class AnnotatedVideo:
    """What all splits of a raw data set say of one video."""

    entry: VideoEntry
    splits: dict[int, list[str]] = field(default_factory=dict)
    """frame_id -> the splits that annotate it; as a rule one."""
    objects: dict[int, list[VideoObject]] = field(default_factory=dict)
    """frame_id -> its objects."""
    num_outside: int = 0
    """Boxes outside of the frame, which are left out."""

    @property
    def all_objects(self) -> list[VideoObject]:
        """The objects of all frames."""
        return [item for items in self.objects.values() for item in items]


@dataclass(frozen=True, slots=True)
class ShownVideo:
    """What `show_video` wrote and found."""

    name: str
    num_frames: int
    num_objects: int
    """On the frames that there are."""
    preview: Path
    sheet: Path | None
    """None for a video without objects."""
    on_sheet: tuple[VideoObject, ...]
    """Smallest first."""
    notes: tuple[str, ...]

    @property
    def message(self) -> str:
        """Say what there is and where."""
        lines = [*self.notes, f"{self.name}: {self.num_frames} frames, {self.num_objects} boxes"]
        lines.append(f"preview         {self.preview}")
        if self.sheet is None:
            lines.append("contact sheet   none: the video has no objects to show")
        else:
            sizes = f"{self.on_sheet[0].side_px:.1f} to {self.on_sheet[-1].side_px:.1f} px"
            lines.append(f"contact sheet   {self.sheet} ({len(self.on_sheet)} objects, {sizes})")
        return "\n".join(lines)


def show_video(raw: Path, name: str | None, output: Path) -> ShownVideo:
    """Write `<name>_preview.mp4` and `<name>_smallest.png` into `output`; one frame is in memory at a time.

    Without a name the video with the smallest objects (median side) is taken. Raises UserError with one line
    for a data set, video or folder that cannot be used; then neither file is written.
    """
    _check_output(raw, output)
    splits = load_raw_splits(raw)
    notes = []
    if name is None:
        name, why = choose_video(splits)
        notes.append(f"no --video given: {why}")
    video = gather_video(splits, name, raw)
    if video.num_outside:
        notes.append(f"{video.num_outside} boxes lie outside of the frame and are not shown")
    preview, sheet = output / f"{name}_preview.mp4", output / f"{name}_smallest.png"
    wanted = pick_smallest(video.all_objects, NUM_CROPS)
    with _new_file(preview) as partial:
        crops, num_frames = _write_preview(raw / video.entry.file_name, video, wanted, partial)
        _save_sheet([crops[item] for item in wanted if item in crops], sheet)
    if late := sum(len(items) for frame_id, items in video.objects.items() if frame_id >= num_frames):
        notes.append(
            f"{late} boxes belong to frames past the end of the video, which has {num_frames} frames"
        )
    return ShownVideo(
        name,
        num_frames,
        len(video.all_objects) - late,
        preview,
        sheet if crops else None,
        tuple(item for item in wanted if item in crops),
        tuple(notes),
    )


def load_raw_splits(raw: Path) -> dict[str, VideoAnnotations]:
    """Read the annotations of every split, or all.json; AnnotationError where there are none."""
    files = annotation_files(raw)
    present = [split for split in files if split != UNSPLIT] or [UNSPLIT]
    return {split: load_annotations(files[split]) for split in present}


def choose_video(splits: Mapping[str, VideoAnnotations]) -> tuple[str, str]:
    """Return the video whose objects are smallest (by the median of their sides), and why it was chosen."""
    names = _video_names(splits)
    if not names:
        raise AnnotationError("the data set lists no video, expected at least one; import it again")
    sides: dict[str, list[float]] = {name: [] for name in names}
    for loaded in splits.values():
        entries = {video.id: video for video in loaded.videos}
        for item in loaded.annotations:
            video = entries[item.video_id]
            bbox = clip_bbox(item.bbox, (video.height, video.width))
            if bbox is not None and not item.iscrowd:
                sides[video.name].append(math.sqrt(bbox[2] * bbox[3]))
    medians = {name: statistics.median(values) for name, values in sides.items() if values}
    if not medians:
        return names[0], f"{names[0]} is the first video, no video has objects"
    chosen = min(medians, key=lambda name: medians[name])
    return chosen, f"{chosen} has the smallest objects (median side {medians[chosen]:.1f} px)"


def gather_video(splits: Mapping[str, VideoAnnotations], name: str, raw: Path) -> AnnotatedVideo:
    """Return what the splits say of a video; AnnotationError names the nearest names where none knows it."""
    gathered: AnnotatedVideo | None = None
    for split, loaded in splits.items():
        entry = loaded.video_by_name.get(name)
        if entry is not None:
            gathered = gathered or AnnotatedVideo(entry)
            _add_split(gathered, split, loaded)
    if gathered is None:
        names = _video_names(splits)
        nearest = ", ".join(nearest_names(name, names)) or "none"
        raise AnnotationError(
            f"{raw}: has no video {name!r}; the nearest of its {len(names)} videos are: {nearest}"
        )
    return gathered


def nearest_names(name: str, names: Sequence[str]) -> list[str]:
    """Return the few names most like `name`, whatever their case, the nearest first."""
    folded: dict[str, list[str]] = {}
    for known in names:
        folded.setdefault(known.casefold(), []).append(known)
    near = difflib.get_close_matches(name.casefold(), folded, n=_NUM_NEAREST, cutoff=0.0)
    return [known for key in near for known in folded[key]][:_NUM_NEAREST]


def _video_names(splits: Mapping[str, VideoAnnotations]) -> list[str]:
    """Return each video once, in the order of the files."""
    return list(dict.fromkeys(video.name for loaded in splits.values() for video in loaded.videos))


def _add_split(video: AnnotatedVideo, split: str, annotations: VideoAnnotations) -> None:
    categories = {category.id: category.name for category in annotations.categories}
    for image in annotations.images_by_video[video.entry.name]:
        video.splits.setdefault(image.frame_id, []).append(split)
        if len(video.splits[image.frame_id]) > 1:
            continue  # Another split has shown its objects.
        for item in annotations.annotations_by_image.get(image.id, []):
            bbox = clip_bbox(item.bbox, (video.entry.height, video.entry.width))
            if bbox is None:
                video.num_outside += 1
                continue
            found = VideoObject(
                image.frame_id,
                bbox,
                categories[item.category_id],
                item.instance_id,
                split,
                is_crowd=bool(item.iscrowd),
            )
            video.objects.setdefault(image.frame_id, []).append(found)


def _check_output(raw: Path, output: Path) -> None:
    if output.resolve().is_relative_to(raw.resolve()):
        raise UserError(f"{output}: lies in the data set, expected another folder; data stays as it is")


def _write_preview(
    path: Path, video: AnnotatedVideo, wanted: Sequence[VideoObject], preview: Path
) -> tuple[dict[VideoObject, Frame], int]:
    """Write the preview; return the enlarged crops of the wanted objects, and the number of frames."""
    if not path.exists():
        raise VideoError(
            f"{path}: no such video; a data set imported with --annotations-only has none: import it with them"
        )
    crops: dict[VideoObject, Frame] = {}
    num_frames = 0
    writer: VideoWriter | None = None
    try:
        progress = tqdm(total=video.entry.num_frames, desc=video.entry.name, unit="frame", disable=None)
        with progress:
            for frame in read_as_annotated(path, video.entry):
                here = [item for item in wanted if item.frame_id == num_frames]
                crops |= {item: draw_crop(frame, item) for item in here}
                drawn = draw_preview(frame, video, num_frames)
                if writer is None:
                    writer = VideoWriter(preview, _frame_rate(video.entry), drawn.shape[:2])
                writer.write(drawn)
                num_frames += 1
                progress.update()
    finally:
        if writer is not None:
            writer.close()
    return crops, num_frames


def draw_preview(frame: Frame, video: AnnotatedVideo, frame_id: int) -> Frame:
    """Return the frame with its named boxes, over a line with its number and splits: (H, W, 3) -> (H + h, W, 3)."""
    objects = video.objects.get(frame_id, [])
    boxes = np.array([item.corners for item in objects], np.float32).reshape(-1, 4)
    names = [item.name for item in objects]
    drawn = draw_instances(frame, boxes, names, [item.instance for item in objects])
    splits = ", ".join(video.splits.get(frame_id, [])) or "not annotated"
    return append_caption(drawn, f"frame {frame_id}  {splits}")


def _frame_rate(entry: VideoEntry) -> float:
    low, high = _FRAME_RATES
    return entry.frame_rate if low <= entry.frame_rate <= high else DEFAULT_FRAME_RATE


def _save_sheet(crops: Sequence[Frame], sheet: Path) -> None:
    """Write the contact sheet; without crops, take away that of an earlier state of the data."""
    if not crops:
        sheet.unlink(missing_ok=True)
        return
    with _new_file(sheet) as partial:
        Image.fromarray(join_crops(crops)).save(partial, "PNG")


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Hand out a name for a new file as `new_file` does, in a folder that is made where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as partial:
            yield partial
    except OSError as error:
        place = error.filename or path
        raise UserError(
            f"{place}: cannot be used ({error.strerror or error}), expected a folder and files "
            "that may be read and written"
        ) from None
