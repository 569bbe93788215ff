"""TensorRT's Python package without TensorRT: engines are ONNX models that ONNX Runtime runs.

Names and arguments are those of TensorRT's own bindings (python/src/infer/pyCore.cpp of 8.5.3, 10.13 and 11.1); what
a version does not have, this one does not have either. Set `LSTFE_FAKE_TENSORRT` to choose the version.
"""

from __future__ import annotations

from tensorrt.building import Builder as Builder
from tensorrt.building import OnnxParser as OnnxParser
from tensorrt.names import *  # noqa: F403 - which names there are depends on the version
from tensorrt.names import __version__ as __version__
from tensorrt.running import Runtime as Runtime
from tensorrt.running import SharedLibrary as SharedLibrary
