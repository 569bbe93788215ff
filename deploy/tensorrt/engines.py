"""A bundle's engines, deserialised: loaded once a process, shared by its streams and threads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from deploy.bundle import Bundle
from deploy.graphs import graphs_of
from deploy.tensorrt.cuda import Cuda, open_cuda
from deploy.tensorrt.library import TensorRT, open_tensorrt
from deploy.tensorrt.manifest import (
    PLUGIN_FILE,
    EngineError,
    EngineManifest,
    check_files,
    find_engines,
)
from deploy.tensorrt.resampling import NAME as RESAMPLE
from lstfe.config import Config

_LOG = logging.getLogger(__name__)
RESAMPLE_INPUTS = ("frame", "row_weights", "column_weights", "inside")
_shared: WeakValueDictionary[Path, Engines] = WeakValueDictionary()


class Engines:
    """The engines of one folder, deserialised; safe to share between streams and threads."""

    def __init__(
        self, tensorrt: TensorRT, cuda: Cuda, directory: Path, manifest: EngineManifest, config: Config
    ) -> None:
        """Load all that the manifest lists; raises EngineError for what is missing, changed or refused."""
        self.tensorrt = tensorrt
        self.cuda = cuda
        self.manifest = manifest
        self.config = config
        graphs = graphs_of(config, manifest.form)
        self.inputs = {graph.name: graph.inputs for graph in graphs if graph.name != "preprocess"}
        self.outputs = {graph.name: graph.outputs for graph in graphs if graph.name != "preprocess"}
        self.inputs[RESAMPLE], self.outputs[RESAMPLE] = RESAMPLE_INPUTS, ("image",)
        check_files(directory, manifest.files)
        if missing := sorted({f"{name}.plan" for name in self.inputs} - manifest.files.keys()):
            raise EngineError(f"{directory}: no {', '.join(missing)}; build the engines again")
        if manifest.has_plugin:
            tensorrt.load_plugin(directory / PLUGIN_FILE)
        self._directory = directory
        self._profiles_taken: set[str] = set()
        with cuda.set_up, cuda.active():
            self._runtime = tensorrt.start(tensorrt.module.Runtime)
            self._engines = {name: self._load(name) for name in self.inputs}
        _LOG.info("engines %s on %s", directory.name, cuda.gpu.name)

    def _load(self, name: str) -> Any:
        path = self._directory / f"{name}.plan"
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EngineError(
                f"{path}: TensorRT {self.tensorrt.version} refuses it: {self.tensorrt.last_error()}; "
                "build the engines again"
            )
        return engine

    def __getitem__(self, name: str) -> Any:
        return self._engines[name]

    def dtype(self, name: str, tensor: str) -> np.dtype[Any]:
        """Return the type of a graph's input or output."""
        dtype: np.dtype[Any] = np.dtype(self.tensorrt.module.nptype(self[name].get_tensor_dtype(tensor)))
        return dtype

    @property
    def scratch_bytes(self) -> int:
        """Memory that the hungriest engine computes in."""
        # 11 has no `device_memory_size` any more, 8.5 to 10.0 no `_v2` yet.
        names = ("device_memory_size_v2", "device_memory_size")
        attribute = next(name for name in names if hasattr(self["backbone"], name))
        return max(int(getattr(engine, attribute)) for engine in self._engines.values())

    def new_context(self, name: str) -> Any:
        """Return an execution context without memory of its own; raises EngineError."""
        module = self.tensorrt.module
        with self.cuda.set_up:
            engine = self._engine_for_context(name)
            if self.tensorrt.major >= 10:
                strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
                context = engine.create_execution_context(strategy)
            else:
                context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise EngineError(
                f"graph {name}: no execution context on {self.cuda.gpu.name}: {self.tensorrt.last_error()}; "
                "run fewer streams on this GPU"
            )
        return context

    def _engine_for_context(self, name: str) -> Any:
        """Return the engine, or before 8.6 another copy of it: there, contexts cannot share an engine's profile."""
        has_free_shapes = any(
            -1 in tuple(self[name].get_tensor_shape(tensor)) for tensor in self.inputs[name]
        )
        if self.tensorrt.shares_profiles or not has_free_shapes:
            return self[name]
        if name not in self._profiles_taken:
            self._profiles_taken.add(name)
            return self[name]
        return self._load(name)

    def require_in_profile(self, name: str, tensor: str, shape: tuple[int, ...], what: str) -> None:
        """Raise EngineError for a shape that the engine was not built for."""
        fixed = tuple(self[name].get_tensor_shape(tensor))
        bounds = [fixed] * 3 if -1 not in fixed else self[name].get_tensor_profile_shape(tensor, 0)
        least, _, most = (tuple(bound) for bound in bounds)
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            raise EngineError(
                f"{what}: graph {name} takes {tensor} from {shape_text(least)} to {shape_text(most)}, got "
                f"{shape_text(shape)}; build engines for it: `lstfe engine build BUNDLE --image-size HEIGHTxWIDTH`"
            )


def open_engines(bundle: Bundle) -> Engines:
    """Load the engines of a bundle that were built for this machine, once a process; raises EngineError, CudaError."""
    tensorrt = open_tensorrt()
    cuda = open_cuda()
    directory, manifest = find_engines(bundle, tensorrt.version, cuda.gpu)
    directory = directory.resolve()
    engines = _shared.get(directory)
    if engines is None or engines.manifest != manifest:
        engines = _shared[directory] = Engines(tensorrt, cuda, directory, manifest, bundle.config)
    return engines


def shape_text(shape: tuple[int, ...]) -> str:
    """Return `1x3x600x800`."""
    return "x".join(map(str, shape))
