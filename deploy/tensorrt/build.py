"""ONNX -> TensorRT engines: `lstfe engine build`, on the machine that will run them.

A bundle's graphs are written as the family for TensorRT (deploy/tensorrt_graphs), the plugin is built or taken,
each graph is parsed and built for the frame sizes asked for. All appears at once in BUNDLE/engines/<key>, where the
bundle's own files stay as they are.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.bundle import PARITY_FILE, Bundle
from deploy.files import stamp_of, whole_folder
from deploy.graphs import GraphSizes, Precision
from deploy.plugin.build import provide_plugin
from deploy.tensorrt.cuda import open_cuda
from deploy.tensorrt.library import TensorRT, open_tensorrt
from deploy.tensorrt.manifest import (
    ENGINES_DIR,
    FORMAT_VERSION,
    PLUGIN_FILE,
    EngineError,
    EngineManifest,
    engine_key,
    graphs_sha256,
    write_engine_manifest,
)
from deploy.tensorrt.precision import require_kernels, set_precision
from deploy.tensorrt.resampling import NAME as RESAMPLE
from deploy.tensorrt.resampling import padded_size, resample_model
from lstfe.config import Config
from lstfe.image_size import model_input_size

if TYPE_CHECKING:
    from onnx import ModelProto

_LOG = logging.getLogger(__name__)
TIMING_CACHE_FILE = "timing.cache"
# Landscape frames of 1:1 to 2:1, tuned to 16:9.
DEFAULT_FRAME_SIZES = ((720, 720), (720, 1280), (720, 1440))
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least, tuned and largest shape of one input."""

    least: Shape
    tuned: Shape
    most: Shape


def build_engines(
    bundle: Bundle,
    *,
    precision: Precision = "fp16",
    frame_sizes: Sequence[tuple[int, int]] = (),
    plugin: Path | None = None,
    calibration: Path | None = None,
) -> Path:
    """Build all engines of a bundle for this machine and return their folder, which is replaced when all are there.

    `frame_sizes` are the (height, width) of the videos; engines for one size alone have fixed shapes and are the
    fastest. `plugin` is a library that was built already, `calibration` a prepared data set (int8, fp8).
    Raises EngineError, CudaError, PluginError or OpsetError with one line for what is missing or refused.
    """
    tensorrt, gpu = open_tensorrt(), open_cuda().gpu
    require_kernels(precision, tensorrt.version, gpu)
    destination = bundle.directory / ENGINES_DIR / engine_key(precision, tensorrt.version, gpu)
    with whole_folder(destination) as partial:
        library = provide_plugin(plugin, partial / PLUGIN_FILE, tensorrt.version, gpu)
        tensorrt.load_plugin(library)
        build = EngineBuild(tensorrt, precision, bundle.directory / ENGINES_DIR / TIMING_CACHE_FILE)
        sizes = tuple(frame_sizes) or DEFAULT_FRAME_SIZES
        opset = _build_all(bundle, build, partial, sizes, calibration)
        manifest = EngineManifest(
            format_version=FORMAT_VERSION,
            model_version=bundle.manifest.model_version,
            graphs_sha256=graphs_sha256(bundle),
            precision=precision,
            form="commuted",
            opset=opset,
            tensorrt=tensorrt.version,
            gpu=gpu.name,
            compute_capability=gpu.compute_capability,
            frame_sizes=sizes,
            files={
                path.name: stamp_of(path)
                for path in sorted(partial.iterdir())
                if path.suffix == ".plan" or path.name == PLUGIN_FILE
            },
        )
        write_engine_manifest(partial, manifest)
    return destination


def _build_all(
    bundle: Bundle,
    build: EngineBuild,
    directory: Path,
    frame_sizes: tuple[tuple[int, int], ...],
    calibration: Path | None,
) -> int:
    import onnx

    from deploy.tensorrt_graphs.family import write_tensorrt_graphs
    from deploy.tensorrt_graphs.opsets import opset_for, require_opset

    version = build.tensorrt.version
    opset = opset_for(version)
    graphs_dir = directory / "graphs"
    paths = write_tensorrt_graphs(
        bundle, graphs_dir, precision=build.precision, opset=opset, calibration=calibration
    )
    models = {path.stem: onnx.load(path) for path in paths}
    image_type = models["backbone"].graph.input[0].type.tensor_type.elem_type
    models[RESAMPLE] = resample_model(min(opset, 17), image_type)
    profiles = profiles_of(bundle.config, frame_sizes)
    for place, (name, model) in enumerate(models.items(), start=1):
        require_opset(model, version)
        _LOG.info("engine %d of %d: %s", place, len(models), name)
        plan = build.plan(name, model, profiles)
        (directory / f"{name}.plan").write_bytes(plan)
    if (graphs_dir / PARITY_FILE).is_file():  # what int8 or fp8 costs
        (graphs_dir / PARITY_FILE).rename(directory / "calibration.json")
    shutil.rmtree(graphs_dir)
    return opset


def profiles_of(config: Config, frame_sizes: Sequence[tuple[int, int]]) -> dict[str, Bounds]:
    """Return the bounds of every input with free sizes, by its name; frames are (height, width).

    The middle of the sizes given, by area, is what engines are tuned to.
    """
    ordered = sorted(frame_sizes, key=lambda size: (size[0] * size[1], size))
    frames = _bounds(ordered)
    images = _bounds([padded_size(model_input_size(size, config.model)) for size in ordered])
    stride = config.model.backbone.feature_stride
    sizes = GraphSizes.of(config)
    counts = sorted((sizes.num_proposals, sizes.num_reference_proposals))

    def each(shape: Callable[[Shape, Shape], Shape]) -> Bounds:
        pairs = zip(frames, images, strict=True)
        return Bounds(*(shape(frame, image) for frame, image in pairs))

    bounds = {
        "frame": each(lambda frame, image: (*frame, 3)),
        "row_weights": each(lambda frame, image: (image[0], frame[0])),
        "column_weights": each(lambda frame, image: (frame[1], image[1])),
        "inside": each(lambda frame, image: image),
        "image": each(lambda frame, image: (1, 3, *image)),
        "boxes": Bounds((1, counts[0], 4), (1, counts[1], 4), (1, counts[1], 4)),
    }
    # Whatever else is free is a map: its channels are the network's, its two sizes the image's over the stride.
    bounds["map"] = each(lambda frame, image: (image[0] // stride, image[1] // stride))
    return bounds


def _bounds(sizes: Sequence[Shape]) -> tuple[Shape, Shape, Shape]:
    """Return least, tuned and largest of (height, width), side by side."""
    heights, widths = zip(*sizes, strict=True)
    return (min(heights), min(widths)), sizes[len(sizes) // 2], (max(heights), max(widths))


class EngineBuild:
    """Parses and builds graphs with one TensorRT, one precision and one timing cache."""

    def __init__(self, tensorrt: TensorRT, precision: Precision, timing_cache: Path) -> None:
        self.tensorrt = tensorrt
        self.precision = precision
        self._timing_cache = timing_cache
        self._builder = tensorrt.start(tensorrt.module.Builder)

    def plan(self, name: str, model: ModelProto, profiles: dict[str, Bounds]) -> bytes:
        """Build one graph; raises EngineError with TensorRT's reason."""
        trt = self.tensorrt.module
        network = self._builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, self.tensorrt.logger)
        if not parser.parse(model.SerializeToString()):
            faults = [str(parser.get_error(place)) for place in range(parser.num_errors)]
            reason = " ".join((faults or [self.tensorrt.last_error()])[0].split())
            raise EngineError(f"graph {name}: TensorRT {self.tensorrt.version} does not read it: {reason}")
        config = self._builder.create_builder_config()
        self._set_preview_features(config)
        if self.precision == "fp32" or name == RESAMPLE:
            config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of mantissa would move pixels and boxes
        if self.tensorrt.major < 10:
            set_precision(trt, config, network, model)
        self._set_input_shapes(config, network, name, profiles)
        cache = self._use_timing_cache(config)
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(
                f"graph {name}: TensorRT {self.tensorrt.version} does not build it: {self.tensorrt.last_error()}"
            )
        if cache is not None:
            self._timing_cache.write_bytes(bytes(cache.serialize()))
        return bytes(plan)

    def _network_flags(self) -> int:
        """Types come from the graphs where TensorRT can take them from there; else from the builder's flags."""
        flags = self.tensorrt.module.NetworkDefinitionCreationFlag
        wanted = "STRONGLY_TYPED" if self.tensorrt.major >= 10 else "EXPLICIT_BATCH"
        return 1 << int(getattr(flags, wanted))

    def _set_preview_features(self, config: Any) -> None:
        """Ask TensorRT before 10 for what newer ones do by themselves."""
        trt = self.tensorrt.module
        features: Any = getattr(trt, "PreviewFeature", None)
        if hasattr(features, "PROFILE_SHARING_0806"):  # several contexts of an engine whose shapes are free
            config.set_preview_feature(features.PROFILE_SHARING_0806, True)
        without_cublas = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
        if self.tensorrt.major >= 10 or not hasattr(features, without_cublas):
            return
        config.set_preview_feature(getattr(features, without_cublas), True)
        sources = config.get_tactic_sources()
        for source in (trt.TacticSource.CUBLAS, trt.TacticSource.CUBLAS_LT, trt.TacticSource.CUDNN):
            sources &= ~(1 << int(source))
        config.set_tactic_sources(sources)

    def _set_input_shapes(self, config: Any, network: Any, name: str, profiles: dict[str, Bounds]) -> None:
        """Give inputs their sizes: fixed ones where the frames leave no choice, which TensorRT knows most about."""
        profile = self._builder.create_optimization_profile()
        is_used = False
        for tensor in [network.get_input(place) for place in range(network.num_inputs)]:
            if -1 not in tuple(tensor.shape):
                continue
            bounds = bounds_of(tensor.name, tuple(tensor.shape), profiles)
            if bounds.least == bounds.most:
                tensor.shape = bounds.most
            else:
                profile.set_shape(tensor.name, bounds.least, bounds.tuned, bounds.most)
                is_used = True
        if is_used and config.add_optimization_profile(profile) < 0:
            raise EngineError(f"graph {name}: TensorRT refuses its profile: {self.tensorrt.last_error()}")

    def _use_timing_cache(self, config: Any) -> Any:
        """Let TensorRT remember which kernels were fastest; a cache of another version or GPU starts anew."""
        known = self._timing_cache.read_bytes() if self._timing_cache.is_file() else b""
        cache = config.create_timing_cache(known)
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            if cache is None or not config.set_timing_cache(cache, False):
                return None
        return cache


def bounds_of(name: str, shape: Shape, profiles: dict[str, Bounds]) -> Bounds:
    """Return the bounds of one input: sizes that are fixed stay, the others are the profile's."""
    axes = [axis for axis, size in enumerate(shape) if size < 0]
    is_map = name not in profiles
    if is_map and len(axes) != 2:
        raise EngineError(f"input {name} {shape}: only the sizes of maps may be free; write the graphs again")
    bounds = profiles["map" if is_map else name]

    def fixed(bound: Shape) -> Shape:
        sizes = list(shape)
        for axis, place in zip(axes, (0, 1) if is_map else axes, strict=True):
            sizes[axis] = bound[place]
        return tuple(sizes)

    return Bounds(fixed(bounds.least), fixed(bounds.tuned), fixed(bounds.most))
