"""Runs the graphs of a bundle with ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from deploy.device import Array, host_threads
from deploy.graphs import Graph, GraphSizes, graphs_of
from lstfe.config import Config
from lstfe.errors import UserError, one_line


class GraphError(UserError):
    """A graph file cannot be run, or is not the graph that the configuration asks for."""


class OnnxGraphs:
    """The graphs of one detector, each in a session of its own."""

    def __init__(self, directory: Path, config: Config, *, num_threads: int | None = None) -> None:
        """Load `<graph>.onnx` of `directory` for every graph of `config`; raises GraphError.

        `num_threads` as `session_options` takes it.
        """
        options = session_options(num_threads)
        self._graphs = {graph.name: graph for graph in graphs_of(config)}
        lengths = GraphSizes.of(config).lengths
        self._sessions = {
            name: _open(directory / f"{name}.onnx", options, graph, lengths)
            for name, graph in self._graphs.items()
        }

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph: inputs and outputs as `graphs_of` lists them."""
        graph = self._graphs[name]
        feed = dict(zip(graph.inputs, inputs, strict=True))
        outputs: list[Array] = self._sessions[name].run(list(graph.outputs), feed)
        return outputs

    def run_into(self, outputs: Sequence[Array], name: str, *inputs: Array) -> None:
        """Run one graph and let it write into arrays of the right shapes and types."""
        graph, session = self._graphs[name], self._sessions[name]
        binding = session.io_binding()
        for tensor, array in zip(graph.inputs, inputs, strict=True):
            binding.bind_cpu_input(tensor, array)
        for tensor, array in zip(graph.outputs, outputs, strict=True):
            binding.bind_output(tensor, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding)


def session_options(num_threads: int | None = None) -> onnxruntime.SessionOptions:
    """Return the options of a session that takes turns with others; `num_threads` is `host_threads` unless given."""
    options = onnxruntime.SessionOptions()
    # ONNX Runtime has threads of its own, which know nothing of the usual variable.
    options.intra_op_num_threads = host_threads() if num_threads is None else num_threads
    # The sessions take turns: threads of one that wait busily would take the cores from the next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _open(
    path: Path, options: onnxruntime.SessionOptions, graph: Graph, lengths: Mapping[str, int]
) -> onnxruntime.InferenceSession:
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own that share no base
        reason = one_line(error)
        raise GraphError(
            f"{path}: not a graph that ONNX Runtime {onnxruntime.__version__} runs: {reason}"
        ) from None
    _check(session, path, graph, lengths)
    return session


def _check(
    session: onnxruntime.InferenceSession, path: Path, graph: Graph, lengths: Mapping[str, int]
) -> None:
    advice = "export again with the configuration of the bundle"
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [value.name for value in inputs], [value.name for value in outputs]
    if names != (list(graph.inputs), list(graph.outputs)):
        raise GraphError(
            f"{path}: inputs {', '.join(names[0])}, outputs {', '.join(names[1])}; expected "
            f"{', '.join(graph.inputs)} and {', '.join(graph.outputs)}; {advice}"
        )
    for value in inputs:
        expected = lengths.get(value.name)
        if expected is not None and value.shape[1] != expected:
            raise GraphError(
                f"{path}: {value.name} has {value.shape[1]} entries, this configuration gives {expected}; {advice}"
            )
