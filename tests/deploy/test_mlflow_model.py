from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.detect import detect_source
from deploy.mlflow_model import COLUMNS, _load_pyfunc
from lstfe.data.video import read_video
from lstfe.errors import UserError
from lstfe.evaluation.records import load_detections


def test_no_frames_give_an_empty_table(bundle_dir: Path) -> None:
    table = _load_pyfunc(str(bundle_dir)).predict({"frames": np.zeros((0, 64, 96, 3), np.uint8)})
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 0


def test_the_model_finds_what_lstfe_detect_finds(
    bundle_dir: Path, make_video: Callable[..., Any], tmp_path: Path
) -> None:
    video = make_video(6)
    detect_source(video, bundle_dir, output_dir=tmp_path, progress=False)
    records = load_detections(tmp_path / "detections.json")
    table = _load_pyfunc(str(bundle_dir)).predict({"frames": np.stack(list(read_video(video)))})
    assert table["frame_id"].tolist() == [record.frame_id for record in records]
    assert table["category"].tolist() == [record.category for record in records]
    np.testing.assert_allclose(
        table[["x", "y", "width", "height"]], [record.bbox for record in records], atol=1e-3
    )
    np.testing.assert_allclose(table["score"], [record.score for record in records], atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 64, 96), (2, 3, 64, 96)])
def test_frames_of_another_form_are_refused(bundle_dir: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"expected \(T, H, W, 3\) uint8 RGB"):
        _load_pyfunc(str(bundle_dir)).predict({"frames": np.zeros(shape, np.uint8)})
