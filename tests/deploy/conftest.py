"""A tiny network with random weights, its graphs (exported once), bundles and moving pictures."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from deploy.bundle import WEIGHTS_FILE, open_bundle, write_bundle
from deploy.export_onnx import build_graph, export_graph, export_graphs
from deploy.graphs import graphs_of
from deploy.network import load_network
from lstfe.config import Config, InferenceConfig, ModelConfig
from lstfe.data.coco_video import (
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoAnnotations,
    VideoEntry,
    save_annotations,
)
from lstfe.data.frames import write_frames
from lstfe.data.video import VideoWriter
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import resolve_method
from lstfe.training.checkpoint import save_weights
from lstfe.types import ByteArray

from ..conftest import MakeOnce

LABEL_NAMES = ("drone", "bird")
IMAGE_SIZE = (64, 96)
NUM_PREPARED_FRAMES = 5
"""Of the one video of each split of `prepared`."""

INFERENCE = InferenceConfig(lookahead=2, alignment_gap=1, relation_range=3, num_relation=3, num_candidates=3)


@dataclass(frozen=True, slots=True)
class Exported:
    """A network, its configuration and the folder of its graphs."""

    model: LSTFENet
    config: Config
    directory: Path


@pytest.fixture(scope="session")
def build_method(
    tiny: Callable[..., ModelConfig], build_model: Callable[..., LSTFENet]
) -> Callable[..., tuple[LSTFENet, Config]]:
    """Return a builder of networks by method, in evaluation mode, with their configuration."""

    def build(method: Any = "lstfe") -> tuple[LSTFENet, Config]:
        model = tiny(relation={"stages": ("long_term", "short_term", "short_term", "long_term")})
        config = resolve_method(Config(inference=INFERENCE, model=replace(model, method=method)))
        return build_model(config.model).eval(), config

    return build


@pytest.fixture(scope="session")
def export(
    build_method: Callable[..., tuple[LSTFENet, Config]], make_once: MakeOnce
) -> Callable[[str], Exported]:
    """Return an exporter of the graphs of lstfe, or of faster_rcnn, once for all tests, which may read them only."""

    @functools.cache
    def build(method: str = "lstfe") -> Exported:
        model, config = build_method(method)
        if method == "lstfe":
            directory = make_once("exported-lstfe", lambda folder: export_graphs(model, config, folder))
            return Exported(model, config, directory)
        # With the same weights all graphs but one are lstfe's; exporting takes seconds.
        whole = build("lstfe")
        model.load_state_dict({name: whole.model.state_dict()[name] for name in model.state_dict()})

        def write(folder: Path) -> None:
            folder.mkdir()
            for graph in graphs_of(config):
                if graph.name == "relation":
                    export_graph(graph.name, model, config, folder)
                else:
                    shutil.copy(whole.directory / f"{graph.name}.onnx", folder)

        return Exported(model, config, make_once(f"exported-{method}", write))

    return build


@pytest.fixture(scope="session")
def bundle_dir(export: Callable[[str], Exported], make_once: MakeOnce) -> Path:
    """Return a bundle that tests may read, not change."""

    def write(folder: Path) -> None:
        exported = export("lstfe")
        weights = folder.with_name(WEIGHTS_FILE)
        save_weights(exported.model, weights)
        write_bundle(
            folder,
            config=exported.config,
            label_names=LABEL_NAMES,
            weights=weights,
            graphs_dir=exported.directory,
            created_from="0123abc",
        )

    return make_once("deployed", write)


@pytest.fixture(scope="session")
def build_commuted(bundle_dir: Path, make_once: MakeOnce) -> Callable[..., onnx.ModelProto]:
    """Return a `build_graph` for the bundle's graphs of the form `commuted`: tracing one takes seconds."""
    bundle = open_bundle(bundle_dir)

    def write(name: str, path: Path) -> None:
        onnx.save(build_graph(name, load_network(bundle), bundle.config, "commuted"), path)

    return lambda name, *_: onnx.load(make_once(f"commuted-{name}.onnx", functools.partial(write, name)))


def moving_frames(
    num_frames: int, image_size: tuple[int, int] = IMAGE_SIZE, *, seed: int = 0
) -> Iterator[ByteArray]:
    """Yield frames of a texture that moves by a pixel a frame, (H, W, 3) uint8."""
    height, width = image_size
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8
    )
    texture = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    for shift in range(num_frames):
        yield np.roll(texture, (shift // 2, shift), axis=(0, 1))


@pytest.fixture(scope="session")
def make_frames() -> Callable[..., Iterator[ByteArray]]:
    """Return `moving_frames`."""
    return moving_frames


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of the bundle's categories; in each split one short video, an object in every frame."""
    directory = tmp_path_factory.mktemp("prepared")
    for folder in ("annotations", "frames"):
        (directory / folder).mkdir()
    height, width = IMAGE_SIZE
    for seed, split in enumerate(("train", "val", "test")):
        annotations = VideoAnnotations(
            videos=[VideoEntry(1, split, f"{split}.mp4", width, height, NUM_PREPARED_FRAMES)],
            images=[ImageEntry(i + 1, 1, i, width, height) for i in range(NUM_PREPARED_FRAMES)],
            annotations=[
                AnnotationEntry(i + 1, i + 1, 1, 1, (10.0, 10.0, 20.0, 12.0), 240.0)
                for i in range(NUM_PREPARED_FRAMES)
            ],
            categories=[CategoryEntry(i, name) for i, name in enumerate(LABEL_NAMES, start=1)],
        )
        save_annotations(annotations, directory / "annotations" / f"{split}.json")
        frames = moving_frames(NUM_PREPARED_FRAMES, seed=seed)
        write_frames(directory / "frames" / f"{split}.zip", enumerate(frames), 95)
    return directory


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of short videos: make_video(num_frames) -> path of an mp4."""

    def make(num_frames: int, image_size: tuple[int, int] = IMAGE_SIZE, name: str = "clip") -> Path:
        path = tmp_path / f"{name}.mp4"
        with VideoWriter(path, 30.0, image_size) as writer:
            for frame in moving_frames(num_frames, image_size):
                writer.write(frame)
        return path

    return make
