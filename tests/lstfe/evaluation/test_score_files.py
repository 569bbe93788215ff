"""Two JSON files of any tool against the same data by way of annotations and records; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstfe.data.coco_video import load_annotations
from lstfe.evaluation.json_columns import ScoreFileError
from lstfe.evaluation.presets import PROTOCOLS
from lstfe.evaluation.protocols import score, score_frames
from lstfe.evaluation.records import DetectionRecord, load_detections
from lstfe.evaluation.score_files import ScoredFiles, read_scored

Edit = Callable[[dict[str, Any], list[dict[str, Any]]], object]


def random_ground_truth(seed: int) -> dict[str, Any]:
    """Three videos of 12 frames, in which tracks wander; image ids do not follow the frames."""
    random = np.random.default_rng(seed)
    ids = (100 + random.permutation(36)).tolist()
    images = [
        {"id": ids[n], "video_id": 1 + n // 12, "frame_id": n % 12, "width": 320, "height": 240}
        for n in range(36)
    ]
    objects: list[dict[str, Any]] = []
    for track in range(7):
        place, size = random.uniform(20, 200, 2), random.uniform(8, 40, 2)
        video, start, speed = (
            int(random.integers(3)),
            int(random.integers(4)),
            (0.0, 0.3, 1.0, 4.0)[track % 4],
        )
        for frame in range(start, 12, int(random.integers(1, 3))):
            place = place + random.normal(0, speed, 2)
            objects.append(
                {"id": len(objects) + 1, "image_id": ids[12 * video + frame], "video_id": video + 1,
                 "category_id": 5 + track % 2, "bbox": [*place.tolist(), *size.tolist()],
                 "area": float(size.prod()), "iscrowd": int(track == 6), "instance_id": track + 1}
            )  # fmt: skip
    videos = [
        {
            "id": v,
            "name": f"video_{v}",
            "file_name": f"{v}.mp4",
            "width": 320,
            "height": 240,
            "num_frames": 12,
        }
        for v in (1, 2, 3)
    ]
    categories = [{"id": 5, "name": "drone"}, {"id": 6, "name": "bird"}]
    return {"videos": videos, "images": images, "annotations": objects, "categories": categories}


def random_results(truth: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """COCO results: near every object, and anywhere."""
    random = np.random.default_rng(seed)
    rows = []
    for entry in truth["annotations"]:
        for _ in range(2):
            box = np.array(entry["bbox"]) + random.normal(0, 2, 4)
            rows.append((entry["image_id"], entry["category_id"], box, random.random()))
    for image in truth["images"]:
        rows.append((image["id"], 5 + int(random.integers(2)), random.uniform(5, 60, 4), random.random() / 2))
    return [
        {
            "image_id": image,
            "category_id": category,
            "bbox": np.abs(box).round(3).tolist(),
            "score": round(value, 2),
        }
        for image, category, box, value in rows
    ]


def as_rows_of_videos(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    images = {image["id"]: image for image in truth["images"]}
    names = {category["id"]: category["name"] for category in truth["categories"]}
    return [
        {"video": f"video_{images[row['image_id']]['video_id']}", "frame_id": images[row["image_id"]]["frame_id"],
         "bbox": row["bbox"], "score": row["score"], "category": names[row["category_id"]]}
        for row in results
    ]  # fmt: skip


def read(folder: Path, truth: Any, found: Any, *, frame_stride: int = 1) -> ScoredFiles:
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    return read_scored(folder / "truth.json", folder / "found.json", frame_stride=frame_stride)


def figures(files: ScoredFiles) -> dict[str, dict[str, Any]]:
    return score_frames(files.frames, PROTOCOLS)


def test_empty_lists_give_null_figures(tmp_path: Path) -> None:
    files = read(tmp_path, {"images": [], "annotations": [], "categories": [{"id": 1, "name": "drone"}]}, [])
    assert figures(files)["coco"]["AP"] is None
    assert files.notes == []


@pytest.mark.parametrize("frame_stride", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_files_score_as_annotations_and_records_do(tmp_path: Path, seed: int, frame_stride: int) -> None:
    truth = random_ground_truth(seed)
    rows = as_rows_of_videos(truth, random_results(truth, seed))
    files = read(tmp_path, truth, rows, frame_stride=frame_stride)
    annotations, records = load_annotations(tmp_path / "truth.json"), load_detections(tmp_path / "found.json")
    expected = score(annotations, records, PROTOCOLS, frame_stride=frame_stride)
    assert expected["mega_vid"]["AP50_slow"] is not None
    assert score_frames(files.frames, PROTOCOLS, frame_stride=frame_stride) == expected
    assert files.notes == []


def test_corner_pixels_that_are_inside_count_as_they_do_in_annotations(tmp_path: Path) -> None:
    truth = random_ground_truth(0)
    rows = as_rows_of_videos(truth, random_results(truth, 0))
    outside = figures(read(tmp_path, truth, rows))
    truth["info"] = {"corner_pixels_inside": True}
    files = read(tmp_path, truth, rows)
    annotations, records = load_annotations(tmp_path / "truth.json"), load_detections(tmp_path / "found.json")
    assert figures(files) == score(annotations, records, PROTOCOLS)
    assert figures(files)["mega_vid"]["AP50"] < outside["mega_vid"]["AP50"]
    assert figures(files)["coco"] == outside["coco"]


def test_both_forms_of_detections_score_the_same(tmp_path: Path) -> None:
    truth = random_ground_truth(1)
    results = random_results(truth, 1)
    assert figures(read(tmp_path, truth, results)) == figures(
        read(tmp_path, truth, as_rows_of_videos(truth, results))
    )


def test_plain_coco_scores_the_same_but_has_no_motion(tmp_path: Path) -> None:
    truth = random_ground_truth(2)
    results = random_results(truth, 2)
    whole = figures(read(tmp_path, truth, results))["coco"]
    plain = {key: truth[key] for key in ("annotations", "categories")}
    plain["images"] = [{"id": image["id"]} for image in truth["images"]]
    files = read(tmp_path, plain, results)
    found = figures(files)["coco"]
    assert [found[name] for name in ("AP", "APs", "AR10")] == [whole[name] for name in ("AP", "APs", "AR10")]
    assert found["AP_slow"] is None
    assert files.notes == [
        "the ground truth names no video_id and frame_id of its images: figures by motion are null"
    ]


@pytest.mark.parametrize("missing", ["instance_id", "area", "iscrowd", "video_id", "id"])
def test_annotations_may_lack_what_is_not_needed(tmp_path: Path, missing: str) -> None:
    truth = random_ground_truth(3)
    for entry in truth["annotations"]:
        entry["iscrowd"] = 0
        entry["bbox"] = [float(round(value)) for value in entry["bbox"]]
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    results = random_results(truth, 3)
    whole = figures(read(tmp_path, truth, results))
    for entry in truth["annotations"]:
        del entry[missing]
    files = read(tmp_path, truth, results)
    found = figures(files)
    assert found["coco"]["AP"] == whole["coco"]["AP"]
    assert found["coco"]["APs"] == whole["coco"]["APs"]
    assert (found["mega_vid"]["AP50_slow"] is None) == (missing == "instance_id")
    assert len(files.notes) == (missing in ("instance_id", "area"))


def test_null_area_and_other_tools_keys_are_no_fault(tmp_path: Path) -> None:
    truth = random_ground_truth(0)
    for entry in truth["annotations"]:
        entry |= {"area": None, "segmentation": [], "ignore": 1, "track_id": entry.pop("instance_id")}
    del truth["videos"]
    found = figures(read(tmp_path, truth, random_results(truth, 0)))
    assert found["coco"]["AP"] > 0
    assert found["mega_vid"]["AP50_slow"] is not None


def test_detections_on_videos_without_objects_are_counted_and_said(tmp_path: Path) -> None:
    truth = random_ground_truth(0)
    results = random_results(truth, 0)
    kept = truth["annotations"]
    truth["annotations"] = [entry for entry in kept if entry["video_id"] != 1]
    images = {image["id"] for image in truth["images"] if image["video_id"] == 1}
    number = sum(row["image_id"] in images for row in results)
    files = read(tmp_path, truth, results)
    assert files.notes == [f"{number} detections are on 1 videos without any object: all count as false"]
    assert figures(files)["coco"]["num_detections"] == len(results)


def edit_truth(key: str, **values: object) -> Edit:
    return lambda truth, found: truth[key][2].update(values)


def edit_found(**values: object) -> Edit:
    return lambda truth, found: found[4].update(values)


REFUSED: dict[str, tuple[Edit, str]] = {
    "NaN score": (
        edit_found(score=float("nan")),
        "found.json: detection 4: score nan is not a finite number",
    ),
    "no score": (lambda truth, found: found[4].pop("score"), "detection 4: has no 'score', found image_id"),
    "text as score": (edit_found(score="high"), "detection 4: score 'high' is not a finite number"),
    "truth as score": (edit_found(score=True), "detection 4: score True is not a finite number"),
    "number as text": (edit_found(score="0.5"), "detection 4: score '0.5' is not a finite number"),
    "box of truths": (edit_found(bbox=[1, 2, True, 4]), "detection 4: bbox .* is not four finite numbers"),
    "box past all images": (edit_found(bbox=[0, 0, 1e308, 1]), "detection 4: bbox .* is no box of an image"),
    "text as crowd": (edit_truth("annotations", iscrowd="no"), "entry 2 .*iscrowd 'no' is neither 0 nor 1"),
    "unknown image": (
        edit_found(image_id=7),
        "detection 4: image_id 7 is unknown, expected an id of the ground",
    ),
    "list as image": (edit_found(image_id=[7]), r"detection 4: image_id \[7\] is unknown"),
    "unknown category": (edit_found(category_id=9), "detection 4: category_id 9 is unknown"),
    "negative size": (
        edit_found(bbox=[1, 2, -3, 4]),
        r"detection 4: bbox \[1, 2, -3, 4\] has a negative size",
    ),
    "three numbers": (
        edit_found(bbox=[1, 2, 3]),
        r"detection 4: bbox \[1, 2, 3\] is not four finite numbers",
    ),
    "infinite box": (
        edit_found(bbox=[1, 2, 3, float("inf")]),
        "detection 4: bbox .* is not four finite numbers",
    ),
    "no list as box": (edit_found(bbox=5), "detection 4: bbox 5 is not four finite numbers"),
    "null": (lambda truth, found: found.__setitem__(4, None), "detection 4: 'None' is not an object"),
    "negative object": (
        edit_truth("annotations", bbox=[0, 0, -1, 1]),
        r"truth.json: annotations entry 2 \(id 3\): bbox \[0, 0, -1, 1\] has a negative size",
    ),
    "negative area": (edit_truth("annotations", area=-4), "entry 2 .*area -4 is not a finite number >= 0"),
    "object of no image": (edit_truth("annotations", image_id=1), "entry 2 .*image_id 1 is unknown"),
    "object of no category": (edit_truth("annotations", category_id=1), "entry 2 .*category_id 1 is unknown"),
    "image of no video": (edit_truth("images", video_id=9), "images entry 2 .*video_id 9 is unknown"),
    "frame twice": (
        edit_truth("images", frame_id=1),
        "images entry .*frame 1 of video 'video_1' occurs twice",
    ),
    "null as id": (edit_truth("images", id=None), "images entry 2 .*id None is not a number or a text"),
    "id twice": (
        lambda truth, found: truth["images"][2].update(id=truth["images"][0]["id"]),
        "images entry 2 .*occurs twice, expected each once",
    ),
    "no categories": (lambda truth, found: truth.pop("categories"), "truth.json: has no list 'categories'"),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_scored_is_refused_by_entry(tmp_path: Path, edit: Edit, message: str) -> None:
    truth = random_ground_truth(0)
    results = random_results(truth, 0)
    edit(truth, results)
    with pytest.raises(ScoreFileError, match=message) as refusal:
        read(tmp_path, truth, results)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video": "other"}, "video 'other' is unknown, expected one of video_1, video_2, video_3"),
        ({"frame_id": 12}, r"frame_id 12 of video 'video_\d' is unknown, expected one of 0..11"),
        ({"frame_id": "1"}, r"frame_id '1' of video 'video_\d' is unknown"),
        ({"category": "plane"}, "category 'plane' is unknown, expected one of drone, bird"),
    ],
)
def test_rows_of_unknown_videos_frames_and_categories_are_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    truth = random_ground_truth(0)
    rows = as_rows_of_videos(truth, random_results(truth, 0))
    rows[4].update(values)
    with pytest.raises(ScoreFileError, match=f"found.json: detection 4: {message}"):
        read(tmp_path, truth, rows)


def test_rows_of_videos_need_videos_in_the_ground_truth(tmp_path: Path) -> None:
    truth = random_ground_truth(0)
    rows = as_rows_of_videos(truth, random_results(truth, 0))
    truth["images"] = [{"id": image["id"]} for image in truth["images"]]
    with pytest.raises(ScoreFileError, match="names videos, which the ground truth has not"):
        read(tmp_path, truth, rows)
    with pytest.raises(ScoreFileError, match="expected a frame stride of 1"):
        read(tmp_path, truth, rows, frame_stride=2)


def test_files_that_are_missing_broken_or_swapped_are_refused(tmp_path: Path) -> None:
    truth = random_ground_truth(0)
    read(tmp_path, truth, random_results(truth, 0))
    (tmp_path / "broken.json").write_text('{"images": [')
    known, found = tmp_path / "truth.json", tmp_path / "found.json"
    for pair, message in {
        (tmp_path / "none.json", found): "none.json: not readable",
        (tmp_path / "broken.json", found): "broken.json: not readable as JSON",
        (found, known): "found.json: not an object with images",
        (known, known): "truth.json: not a list of detections",
    }.items():
        with pytest.raises(ScoreFileError, match=message):
            read_scored(*pair)


def test_records_are_what_detect_writes() -> None:
    assert list(DetectionRecord.__dataclass_fields__) == ["video", "frame_id", "bbox", "score", "category"]
