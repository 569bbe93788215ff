"""The trace shows as many updates as were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lstfe.config import Config
from lstfe.training.profiling import profile_training


@pytest.mark.parametrize("still", [False, True], ids=["whole clips", "still clips"])
def test_the_trace_holds_the_updates_asked_for_and_nothing_else_is_kept(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path, still: bool
) -> None:
    trace = tmp_path / "profiled" / "trace.json"
    table = profile_training(tiny_config, prepared_dir=tiny_prepared, trace=trace, updates=2, still=still)
    names = [event.get("name") for event in json.loads(trace.read_text())["traceEvents"]]
    assert sum(name == "Optimizer.step#AdamW.step" for name in names) == 2
    assert ("aten::scaled_dot_product_attention" in names) != still
    assert "Self CPU" in table
    assert list(tmp_path.iterdir()) == [trace.parent]
