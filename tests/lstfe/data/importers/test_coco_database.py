from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lstfe.data.faults import AnnotationError
from lstfe.data.importers.coco_database import load_files

Content = dict[str, list[dict[str, Any]]]


def _content() -> Content:
    return {
        "videos": [{"id": 1, "name": "a"}],
        "images": [{"id": 5, "video_id": 1, "frame_id": 0}],
        "annotations": [{"id": 9, "image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 3, "name": "drone"}],
    }


def _load(tmp_path: Path, content: Content) -> list[tuple[Any, ...]]:
    path = tmp_path / "a.json"
    rows = (
        f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in values) + "]"
        for key, values in content.items()
    )
    path.write_text("{" + ",\n".join(rows) + "}")
    with closing(sqlite3.connect("")) as database:
        load_files(database, {"all": path})
        return database.execute("SELECT x, y, width, height, instance, line FROM annotations").fetchall()


def test_empty_lists_load(tmp_path: Path) -> None:
    assert _load(tmp_path, {"videos": [], "images": [], "annotations": [], "categories": []}) == []


def test_rows_keep_their_line(tmp_path: Path) -> None:
    assert _load(tmp_path, _content()) == [(1.0, 2.0, 3.0, 4.0, None, 6)]


def _change(section: str, **values: Any) -> Callable[[Content], None]:
    return lambda content: content[section][0].update(values)


def _repeat(section: str, **values: Any) -> Callable[[Content], None]:
    return lambda content: content[section].append({**content[section][0], **values})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: content["images"][0].pop("frame_id"),
            r":4: found no images\.frame_id, expected one",
        ),
        (lambda content: content["videos"].insert(0, []), r":2: videos: found \[\], expected a valid dict"),
        (_change("videos", name=""), r":2: videos\.name: found '', expected .*String should have at least 1"),
        (_change("videos", name="../a"), r":2: found '\.\.__a' as name of a video, expected"),
        (_change("videos", name=None), r":2: found '' as name of a video, expected"),
        (_change("videos", name="\ud800"), r":2: .*expected"),
        (_change("categories", name="\ud800"), r":8: .*expected"),
        (
            _change("images", frame_id=-1),
            r":4: images\.frame_id: found -1, expected greater than or equal to 0",
        ),
        (_change("images", frame_id=10**9), r":4: images\.frame_id: found 10+, expected less than 1000000"),
        (_change("images", video_id=2), r":4: found 2 as video_id, expected the id of a video"),
        (_change("annotations", image_id=2), r":6: found 2 as image_id, expected the id of an image"),
        (_change("annotations", category_id=2), r":6: found 2 as category_id, expected the id of a category"),
        (
            _change("annotations", video_id=2),
            r":6: found 2 as video_id, expected that of the annotation's image",
        ),
        (
            _change("annotations", bbox=[1, 2, 3]),
            r":6: annotations\.bbox\.3: |:6: found no annotations\.bbox\.3",
        ),
        (
            _change("annotations", bbox=[1, 2, 3, 1e300]),
            r":6: annotations\.bbox\.3: found 1e\+300, expected less",
        ),
        (_change("annotations", bbox="wide"), r":6: annotations\.bbox: found 'wide', expected a valid tuple"),
        (_change("annotations", id=10**30), r":6: annotations\.id: found 10+, expected less than or equal"),
        (_repeat("videos"), r":3: found .*, expected each id, name and frame once in the list of videos"),
        (
            _repeat("images", id=6),
            r":5: found .*, expected each id, name and frame once in the list of images",
        ),
        (_repeat("annotations"), r":7: found .*, expected each id, name and frame once in the list of annot"),
        (
            _repeat("categories", id=4),
            r":9: found .*, expected each id, name and frame once in the list of cat",
        ),
    ],
)
def test_a_row_that_breaks_the_grammar_is_named_by_its_line(
    tmp_path: Path, damage: Callable[[Content], None], message: str
) -> None:
    content = _content()
    damage(content)
    with pytest.raises(AnnotationError, match=rf"a\.json{message}") as caught:
        _load(tmp_path, content)
    assert "\n" not in str(caught.value)
