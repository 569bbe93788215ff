from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import MANIFEST_FILE, BundleError, open_bundle, write_bundle
from lstfe.errors import UserError
from lstfe.model.detector import LSTFENet
from lstfe.training.checkpoint import save_weights


@pytest.fixture
def copy(bundle_dir: Path, tmp_path: Path) -> Path:
    """Return a bundle that the test may damage."""
    return Path(shutil.copytree(bundle_dir, tmp_path / "copy"))


def edit_manifest(bundle: Path, **values: object) -> None:
    path = bundle / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest.json in it, expected a bundle"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match="no such directory"):
        open_bundle(tmp_path / "nowhere")


def test_an_opened_bundle_says_what_it_is(bundle_dir: Path, export: Callable[..., Any]) -> None:
    bundle = open_bundle(bundle_dir)
    manifest = bundle.manifest
    assert bundle.config == export("lstfe").config
    assert bundle.label_names == ("drone", "bird")
    assert (manifest.name, manifest.method, manifest.preset) == ("lstfe", "lstfe", "small")
    assert (manifest.opset, manifest.created_from, manifest.run_id) == (20, "0123abc", None)
    assert set(manifest.files) == {path.name for path in bundle_dir.iterdir()} - {MANIFEST_FILE}


def test_the_version_follows_the_content(
    bundle_dir: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    def version(names: tuple[str, ...]) -> str:
        exported = export("lstfe")
        bundle = write_bundle(
            tmp_path / "deployed",
            config=exported.config,
            label_names=names,
            weights=bundle_dir / "weights.safetensors",
            graphs_dir=bundle_dir,
        )
        return bundle.manifest.model_version

    assert version(("drone", "bird")) == open_bundle(bundle_dir).manifest.model_version
    assert version(("drone", "plane")) != open_bundle(bundle_dir).manifest.model_version


@pytest.mark.parametrize("name", ["backbone.onnx", "weights.safetensors", "config.yaml", "labels.json"])
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: changed since the bundle was written"):
        open_bundle(copy)


def test_a_truncated_file_is_refused(copy: Path) -> None:
    path = copy / "relation.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match="1000 bytes"):
        open_bundle(copy)


def test_a_missing_graph_is_refused(copy: Path) -> None:
    (copy / "align.onnx").unlink()
    with pytest.raises(BundleError, match=r"align.onnx: missing, but listed in manifest.json"):
        open_bundle(copy)


def test_a_graph_that_the_manifest_leaves_out_is_missed(copy: Path) -> None:
    files = json.loads((copy / MANIFEST_FILE).read_text())["files"]
    edit_manifest(copy, files={name: stamp for name, stamp in files.items() if name != "align.onnx"})
    with pytest.raises(BundleError, match=r"does not list align.onnx"):
        open_bundle(copy)


def test_another_format_version_is_refused(copy: Path) -> None:
    edit_manifest(copy, format_version=2)
    with pytest.raises(BundleError, match="bundle format 2, this program reads format 1"):
        open_bundle(copy)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format_version": 1}', '{"format_version": 1, "files": 3}']
)
def test_a_manifest_that_is_none_is_refused(copy: Path, content: str) -> None:
    (copy / MANIFEST_FILE).write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json: "):
        open_bundle(copy)


def test_a_manifest_cannot_name_files_outside_of_the_bundle(copy: Path) -> None:
    files = json.loads((copy / MANIFEST_FILE).read_text())["files"]
    edit_manifest(copy, files=files | {"../secret": files["config.yaml"]})
    with pytest.raises(BundleError, match="not a plain file name"):
        open_bundle(copy)


def test_an_unknown_backend_is_refused(bundle_dir: Path) -> None:
    with pytest.raises(BundleError, match="backend 'tensorflow' is not known, expected one of onnx, torch"):
        open_bundle(bundle_dir).detector("tensorflow")


def test_a_bundle_is_not_written_from_an_incomplete_export(
    bundle_dir: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"preprocess.onnx: no such file, but the bundle needs it"):
        write_bundle(
            tmp_path / "deployed",
            config=export("lstfe").config,
            label_names=("drone", "bird"),
            weights=bundle_dir / "weights.safetensors",
            graphs_dir=tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_bundle(copy: Path, export: Callable[..., Any]) -> None:
    with pytest.raises(BundleError):
        write_bundle(
            copy,
            config=export("lstfe").config,
            label_names=("drone",),
            weights=copy / "nothing",
            graphs_dir=copy,
        )
    assert open_bundle(copy).label_names == ("drone", "bird")


def test_a_folder_of_other_things_is_not_replaced(
    bundle_dir: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="holds other things"):
        write_bundle(
            tmp_path,
            config=export("lstfe").config,
            label_names=("drone", "bird"),
            weights=bundle_dir / "weights.safetensors",
            graphs_dir=bundle_dir,
        )
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_weights_of_another_model_are_refused_in_one_line(
    bundle_dir: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    bundle = write_bundle(
        tmp_path / "deployed",
        config=replace(export("lstfe").config),
        label_names=("drone", "bird", "plane"),  # one class more than the head has
        weights=bundle_dir / "weights.safetensors",
        graphs_dir=bundle_dir,
    )
    with pytest.raises(UserError, match="head") as caught:
        bundle.detector("torch")
    assert "\n" not in str(caught.value)


def test_torch_takes_the_number_of_threads_where_a_detector_is_built(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", numbers.append)
    bundle = open_bundle(bundle_dir)

    bundle.detectors("torch")(None)
    assert numbers == []
    build = bundle.detectors("torch", num_threads=2)
    for _ in range(2):
        build(None)
    assert numbers == [2, 2]


def test_a_deployed_detector_never_looks_for_pretrained_weights(
    bundle_dir: Path, export: Callable[..., Any], tmp_path: Path
) -> None:
    config = export("lstfe").config
    backbone = replace(config.model.backbone, weights="/nowhere/resnet18.pth")
    config = replace(config, model=replace(config.model, backbone=backbone))
    save_weights(LSTFENet(config.model, 3, pretrained=False), tmp_path / "weights.safetensors")
    bundle = write_bundle(
        tmp_path / "deployed",
        config=config,
        label_names=("drone", "bird"),
        weights=tmp_path / "weights.safetensors",
        graphs_dir=bundle_dir,
    )
    assert bundle.detector("torch").finish() == []
