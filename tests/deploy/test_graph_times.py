from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle import open_bundle
from deploy.device import HostDevice
from deploy.graph_times import TimedDevice, time_graphs
from deploy.graphs import graphs_of
from deploy.runtime import StreamRuntime


class SlowGraphs:
    """Graphs whose results are waited for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def run(self, name: str, *inputs: Any) -> list[Any]:
        self.asked.append(name)
        return [np.zeros(1)]


class WaitingDevice(HostDevice):
    """Says when somebody waits for it."""

    def __init__(self, graphs: SlowGraphs) -> None:
        super().__init__(graphs)
        self._asked = graphs.asked

    def wait(self) -> None:
        self._asked.append("wait")


def test_every_graph_is_waited_for_before_and_after_it_runs() -> None:
    graphs = SlowGraphs()
    device = TimedDevice(WaitingDevice(graphs))
    device.run("relation", np.zeros(1))
    device.run("decode", np.zeros(1))
    assert graphs.asked == ["wait", "relation", "wait", "wait", "decode", "wait"]
    assert {name: len(seconds) for name, seconds in device.seconds.items()} == {"relation": 1, "decode": 1}


def test_a_stream_shows_what_each_graph_takes_of_a_frame(
    bundle_dir: Path, make_frames: Callable[..., Any]
) -> None:
    bundle = open_bundle(bundle_dir)
    detector = bundle.detector("onnx")
    assert isinstance(detector, StreamRuntime)
    found = {graph.name: graph for graph in time_graphs(detector, make_frames(20), warm_up=12)}
    assert set(found) == {graph.name for graph in graphs_of(bundle.config)}
    assert all(graph.ms > 0 for graph in found.values())
    # The enhanced map of the current frame, and the backbone's own of the frame that has just become a reference.
    assert {name: graph.runs_per_frame for name, graph in found.items()} == {
        **dict.fromkeys(found, 1.0),
        "proposals": 2.0,
        "roi": 2.0,
    }
    spent = [graph.ms_per_frame for graph in found.values()]
    assert spent == sorted(spent, reverse=True)
