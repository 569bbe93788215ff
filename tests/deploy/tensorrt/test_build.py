from __future__ import annotations

from pathlib import Path

import pytest

from deploy.plugin.build import find_headers
from deploy.tensorrt.build import Bounds, bounds_of, profiles_of
from deploy.tensorrt.cuda import Gpu
from deploy.tensorrt.manifest import EngineError, engine_key
from lstfe.config import Config, ModelConfig

CONFIG = Config(model=ModelConfig(image_short_side=600, image_long_side=1000))


def test_frames_of_one_size_give_fixed_shapes() -> None:
    profiles = profiles_of(CONFIG, [(1080, 1920)])
    assert profiles["image"] == Bounds(*[(1, 3, 576, 1024)] * 3), "562 x 1000, padded to multiples of 32"
    assert profiles["map"] == Bounds(*[(36, 64)] * 3)
    assert profiles["frame"].tuned == (1080, 1920, 3)
    assert (profiles["row_weights"].tuned, profiles["column_weights"].tuned) == ((576, 1080), (1920, 1024))


def test_frames_of_several_sizes_span_all_sides_and_are_tuned_to_the_middle_one() -> None:
    profiles = profiles_of(CONFIG, [(1440, 720), (720, 720), (720, 1280)])
    frame = profiles["frame"]
    assert (frame.least, frame.most) == ((720, 720, 3), (1440, 1280, 3))
    assert frame.tuned == (720, 1280, 3)
    image = profiles["image"]
    assert all(
        low <= tuned <= high for low, tuned, high in zip(image.least, image.tuned, image.most, strict=True)
    )


def test_numbers_of_boxes_are_those_of_current_and_reference_frames() -> None:
    boxes = profiles_of(CONFIG, [(600, 800)])["boxes"]
    proposals = CONFIG.model.proposals
    assert boxes.least[1] == min(proposals.current_top_k, proposals.reference_top_k)
    assert boxes.most[1] == max(proposals.current_top_k, proposals.reference_top_k)


def test_sizes_that_a_graph_fixes_stay_and_the_others_are_the_profile_s() -> None:
    profiles = profiles_of(CONFIG, [(600, 800), (600, 1000)])
    found = bounds_of("short_term_features", (1, 2, 256, -1, -1), profiles)
    assert (found.least, found.most) == ((1, 2, 256, 38, 50), (1, 2, 256, 38, 64))
    found = bounds_of("short_term_support_maps", (1, 2, -1, -1, 2304), profiles)
    assert (found.least, found.most) == ((1, 2, 38, 50, 2304), (1, 2, 38, 64, 2304))
    assert bounds_of("boxes", (1, -1, 4), profiles) == profiles["boxes"]
    with pytest.raises(EngineError, match="only the sizes of maps may be free"):
        bounds_of("features", (1, -1, -1, -1), profiles)


def test_a_set_of_engines_is_named_by_what_it_was_built_for() -> None:
    gpu = Gpu("NVIDIA H200 SXM/141GB", "9.0")
    assert engine_key("fp16", "10.13.2.6", gpu) == "fp16-trt10.13.2.6-sm90-nvidia-h200-sxm-141gb"


def test_headers_are_those_of_the_major_version_that_loads_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("8.6.1", "10.13.2"):
        folder = tmp_path / version / "include"
        folder.mkdir(parents=True)
        numbers = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
        lines = [f"#define NV_TENSORRT_{part} {number}" for part, number in numbers]
        (folder / "NvInferVersion.h").write_text("\n".join(lines))
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    assert find_headers("10.3.0") == tmp_path / "10.13.2" / "include"
    assert find_headers("8.5.3") == tmp_path / "8.6.1" / "include"
    assert find_headers("12.0") is None
