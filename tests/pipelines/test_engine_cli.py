from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lstfe.errors import UserError
from pipelines.cli import app
from pipelines.engine_cli import bench_bundle, frame_size


def test_sizes_are_height_and_width() -> None:
    assert frame_size("1080x1920") == (1080, 1920)
    for wrong in ("1080", "1080x", "0x5", "axb"):
        with pytest.raises(UserError, match="expected HEIGHTxWIDTH"):
            frame_size(wrong)


def test_the_commands_are_there_with_their_help() -> None:
    result = CliRunner().invoke(app, ["engine", "--help"])
    assert result.exit_code == 0
    for name in ("build", "verify", "triton"):
        assert name in result.output


def test_an_unknown_backend_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'onxx' is not known, expected torch, onnx and tensorrt"):
        bench_bundle(tmp_path, "onnx,onxx", None, 5, None)


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path, tmp_path / "file" / "figures.json"):
        with pytest.raises(
            UserError, match=r"--output .*: not writable \(.*\), expected a file for the figures"
        ):
            bench_bundle(tmp_path / "no bundle", "onnx", None, 5, output)
