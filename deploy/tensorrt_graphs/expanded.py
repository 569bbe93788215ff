"""Runs the graphs for TensorRT without TensorRT: the plugin's operators expanded, in ONNX Runtime on the CPU.

So everything about them but the engines' own arithmetic is checked in every run of the tests. `PlainView` lets a
backend of the form `commuted`, this one or engines, stand where one of the plain form is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from deploy.device import Array, Graphs
from deploy.graphs import Graph, graphs_of
from deploy.onnx_backend import session_options
from deploy.tensorrt_graphs.operators import expand_operators
from lstfe.config import Config

_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}


class ExpandedGraphs:
    """The graphs of one family, inputs and outputs as `graphs_of(config, "commuted")` lists them."""

    def __init__(self, models: Mapping[str, onnx.ModelProto], config: Config) -> None:
        self._graphs = {graph.name: graph for graph in graphs_of(config, "commuted") if graph.name in models}
        self._sessions = {name: expanded_session(model) for name, model in models.items()}

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph; inputs are cast to the types that it asks for."""
        return run_session(self._sessions[name], self._graphs[name], inputs)


class PlainView:
    """The plain form's contract over graphs of the form `commuted`: `support` is run where `align` is asked for."""

    def __init__(self, commuted: Graphs, plain: Graphs, config: Config) -> None:
        """`plain` runs what a family for TensorRT lacks, the preprocessing."""
        self._commuted = commuted
        self._plain = plain
        self._keeps_features = config.model.alignment.num_blocks > 1

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph of the plain form; values come back in the plain form's types."""
        if name == "preprocess":
            return self._plain.run(name, *inputs)
        if name == "align":
            inputs = self._with_support(*inputs)
        return [_plain_type(value) for value in self._commuted.run(name, *inputs)]

    def _with_support(self, features: Array, short_term_features: Array) -> tuple[Array, ...]:
        frames = [self._commuted.run("support", frame[None]) for frame in short_term_features[0]]
        support = [np.concatenate(part)[None] for part in zip(*frames, strict=True)]
        cascade = [short_term_features] if self._keeps_features else []
        return (features, *cascade, *support)


def expanded_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session for a model of a family, the plugin's operators expanded."""
    options = session_options()
    if any(value.data_type == onnx.TensorProto.FLOAT8E4M3FN for value in model.graph.initializer):
        # Beyond these, ONNX Runtime 1.32 fuses fp8's pairs as if they were int8's, and the results are wrong.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(
        expand_operators(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_session(session: onnxruntime.InferenceSession, graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """Run a session with the inputs of a graph's contract, cast to the types that it has."""
    types = {value.name: _NUMPY_TYPES[value.type] for value in session.get_inputs()}
    feed: dict[str, Array] = {
        name: value.astype(types[name], copy=False) for name, value in zip(graph.inputs, inputs, strict=True)
    }
    outputs: list[Array] = session.run(list(graph.outputs), feed)
    return outputs


def _plain_type(value: Array) -> Array:
    if value.dtype == np.float16:
        return value.astype(np.float32)
    return value.astype(np.int64) if value.dtype == np.int32 else value
