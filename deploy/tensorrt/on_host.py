"""Engines with arrays of the host in and out, to be compared with other ways to run the same graphs."""

from __future__ import annotations

import numpy as np

from deploy.tensorrt.backend import TensorRTDevice
from deploy.tensorrt.cuda import Array, DeviceArray
from deploy.tensorrt.engines import Engines


class EngineGraphs:
    """Engines as `deploy.device.Graphs`; `close` frees the GPU."""

    def __init__(self, engines: Engines) -> None:
        self._device = TensorRTDevice(engines)
        self._engines = engines
        self._uploaded: dict[tuple[object, ...], DeviceArray] = {}

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph on arrays of any type; outputs come as the engine has them."""
        with self._device.active():
            arrays = [self._brought(name, place, value) for place, value in enumerate(inputs)]
            return [self._device.download(array) for array in self._device.run(name, *arrays)]

    def _brought(self, name: str, place: int, value: Array) -> DeviceArray:
        tensor = self._engines.inputs[name][place]
        key = (name, place, value.shape)
        if key not in self._uploaded:
            self._uploaded[key] = self._device.upload(name, tensor, value)
        target = self._uploaded[key]
        self._device.overwrite(target, np.ascontiguousarray(value, target.dtype))
        return target

    def close(self) -> None:
        """Free the GPU's memory."""
        with self._device.active():
            self._device.close()
