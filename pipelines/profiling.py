"""The command `lstfe profile`: where the time of a training goes."""

from __future__ import annotations

from pathlib import Path

from lstfe.model.methods import resolve_method
from lstfe.params import load_config
from pipelines.paths import PARAMS, PREPARED


def profile_current(trace: Path, *, updates: int, still: bool) -> str:
    """Profile the training that params.yaml describes, in this process; return the table and where the trace lies."""
    from lstfe.training.profiling import profile_training

    config = resolve_method(load_config(PARAMS))
    prepared = PREPARED / config.data.name
    table = profile_training(config, prepared_dir=prepared, trace=trace, updates=updates, still=still)
    return f"{table}\ntrace: {trace} (open it in chrome://tracing or ui.perfetto.dev)"
