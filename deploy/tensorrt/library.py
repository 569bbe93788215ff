"""TensorRT's Python library, 8.5 to 11: opened with a logger, and with the plugin registered."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from pathlib import Path
from typing import Any

from deploy.tensorrt.manifest import EngineError

_LOG = logging.getLogger(__name__)
PLUGIN_OPERATORS = ("LstfeDeformConv2d", "LstfeSampledSum", "LstfeProposals", "LstfeSuppression")
_opened: dict[str, Any] = {}


class TensorRT:
    """The module, one logger for the whole process, and which plugin libraries it knows."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.version: str = module.__version__
        number = tuple(int(part) for part in self.version.split(".")[:2])
        self.major = number[0]
        self.shares_profiles = number >= (8, 6)
        """Whether several contexts may use one engine whose shapes are free, once it is built so."""
        self._errors: deque[str] = deque(maxlen=8)
        self._warnings: deque[str] = deque(maxlen=1)
        self._plugins: set[Path] = set()
        self.logger = self._make_logger()
        # TensorRT's own plugins: RoIAlign is one of them, and engines that have it load in no process without.
        module.init_libnvinfer_plugins(self.logger, "")

    def _make_logger(self) -> Any:
        module, errors, warnings = self.module, self._errors, self._warnings
        severity = module.ILogger.Severity

        class Logger(module.ILogger):  # type: ignore[misc,name-defined]
            """Keeps last words for our own one-line messages."""

            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, level: Any, message: str) -> None:
                if level in (severity.INTERNAL_ERROR, severity.ERROR):
                    errors.append(" ".join(message.split()))
                elif level == severity.WARNING:
                    warnings.append(" ".join(message.split()))
                    _LOG.debug("TensorRT: %s", message)

        return Logger()

    def last_error(self) -> str:
        """Return TensorRT's last words, shortened; that a driver is too old is a mere warning to it."""
        words = self._errors or self._warnings
        return words[-1][:300] if words else "it gave no reason"

    def start(self, factory: Any) -> Any:
        """Return a `Builder` or `Runtime`; raises EngineError where TensorRT has none on this machine."""
        try:
            return factory(self.logger)
        except TypeError:  # how the bindings say that the library returned nothing
            raise EngineError(
                f"TensorRT {self.version} does not start on this machine: {self.last_error()}; is the driver new "
                "enough for it?"
            ) from None

    def load_plugin(self, path: Path) -> None:
        """Register the plugin's operators, once; raises EngineError."""
        path = path.resolve()
        if path in self._plugins:
            return
        registry = self.module.get_plugin_registry()
        try:
            loaded = self._load(registry, path)
        except (OSError, RuntimeError, AttributeError) as error:
            raise EngineError(f"{path}: the plugin cannot be loaded: {error}; build it again") from None
        if not loaded:
            raise EngineError(f"{path}: TensorRT {self.version} refuses the plugin: {self.last_error()}")
        if missing := [name for name in PLUGIN_OPERATORS if not self._has_operator(registry, name)]:
            raise EngineError(
                f"{path}: has no operator {', '.join(missing)} for TensorRT {self.version}; build it against the "
                "headers of that version (TENSORRT_ROOT)"
            )
        self._plugins.add(path)

    def _load(self, registry: Any, path: Path) -> bool:
        if hasattr(registry, "load_library"):  # 8.6 and newer
            return registry.load_library(str(path)) is not None
        library, infer = open_shared(str(path)), open_shared("libnvinfer.so.8")
        infer.getPluginRegistry.restype = ctypes.c_void_p
        library.lstfe_register.argtypes, library.lstfe_register.restype = [ctypes.c_void_p], ctypes.c_bool
        return bool(library.lstfe_register(infer.getPluginRegistry()))

    def _has_operator(self, registry: Any, name: str) -> bool:
        find = registry.get_creator if hasattr(registry, "get_creator") else registry.get_plugin_creator
        return find(name, "1", "lstfe") is not None


def open_shared(name: str) -> Any:
    """Open a shared library with ctypes."""
    return ctypes.CDLL(name)


def open_tensorrt() -> TensorRT:
    """Import TensorRT, once; raises EngineError where it is missing or older than 8.5."""
    if "library" not in _opened:
        try:
            import tensorrt
        except ImportError as error:
            raise EngineError(
                "backend tensorrt needs TensorRT 8.5 or newer with its Python package, which cannot be imported "
                f"({error}): run `pip install tensorrt`"
            ) from None
        number = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
        if number < (8, 5):
            raise EngineError(f"TensorRT {tensorrt.__version__} is too old, expected 8.5 or newer")
        _opened["library"] = TensorRT(tensorrt)
    library: TensorRT = _opened["library"]
    return library
