"""`lstfe data import`: what it takes and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from lstfe.errors import UserError
from pipelines import cli
from pipelines.importing import import_data_set

FORMATS = get_args(get_args(get_type_hints(cli.import_data, include_extras=True)["data_format"])[0])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts of two videos, without the videos."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("0,1,-2,1,5,5\n3,1,1,1,5,5\n")
    (folder / "b.txt").write_text("")
    return folder


def _options(**changes: object) -> dict[str, object]:
    names = ("videos", "category")
    return {**dict.fromkeys(names), "split": "none", "annotations_only": True, "link": False, **changes}


@pytest.mark.parametrize("data_format", FORMATS)
def test_every_format_of_the_command_line_has_an_importer(tmp_path: Path, data_format: str) -> None:
    with pytest.raises(UserError, match=r"nowhere: .*expected"):
        import_data_set(data_format, tmp_path / "nowhere", tmp_path / "raw", image_size=None, **_options())


def test_there_are_six_formats() -> None:
    assert sorted(FORMATS) == ["coco-video", "cvat", "fl-drones", "imagenet-vid", "mot", "voc"]


def test_what_was_imported_and_changed_is_said(texts: Path, tmp_path: Path) -> None:
    message = import_data_set("fl-drones", texts, tmp_path / "raw", image_size=None, **_options())
    assert "all: 2 videos, 4 frames, 2 boxes" in message
    assert "1 boxes clipped to the frame" in message
    assert "dropped" not in message
    assert "nothing to prepare or train on without the videos" in message


def test_the_next_commands_are_said(tiny_raw: Path, tmp_path: Path) -> None:
    options = _options(annotations_only=False, split="auto")
    message = import_data_set("coco-video", tiny_raw, tmp_path / "mine", image_size=None, **options)
    assert f"dvc add {tmp_path / 'mine'}" in message
    assert "dvc exp run -S data.name=mine" in message


def test_a_size_that_is_none_is_refused(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--image-size '480': expected HEIGHTxWIDTH"):
        import_data_set("fl-drones", texts, tmp_path / "raw", image_size="480", **_options())


def test_all_options_of_the_command_line_arrive(texts: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    options = [
        "--split",
        "folds:2",
        "--annotations-only",
        "--image-size",
        "4x4",
        "--category",
        "ship",
        "--link",
    ]
    result = CliRunner().invoke(cli.app, ["data", "import", "fl-drones", str(texts), str(raw), *options])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (raw / "annotations").iterdir()) == ["test.json", "train.json"]
    text = (raw / "annotations" / "test.json").read_text()
    assert '"name":"ship"' in text
    assert '"bbox":[0.0,1,4.0,3.0]' in text
    assert CliRunner().invoke(cli.app, ["data", "import", "yolo", str(texts), str(raw)]).exit_code == 2
