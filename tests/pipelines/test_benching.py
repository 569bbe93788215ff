from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.errors import UserError
from pipelines.benching import bench_bundle


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
