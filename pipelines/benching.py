"""`lstfe bench`: from the words of the command line to the figures of each backend."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.benchmark import bench_rows, benchmark, graph_rows
from lstfe.errors import UserError
from pipelines.tables import text_table


def bench_bundle(bundle: Path, backends: str, source: str | None, frames: int, output: Path | None) -> None:
    """Measure backends side by side, print the table, and write JSON if asked for."""
    names = [name.strip() for name in backends.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ("torch", "onnx", "tensorrt")]:
        raise UserError(
            f"--backend {unknown[0]!r} is not known, expected torch, onnx and tensorrt, by commas"
        )
    if output is not None:  # tried before minutes of measuring
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.open("a").close()
        except OSError as error:
            raise UserError(
                f"--output {output}: not writable ({error.strerror}), expected a file for the figures"
            ) from None
    report = benchmark(bundle, names, source=source, num_frames=frames)
    header = ("backend", "p50 ms", "p95 ms", "p99 ms", "frames/s", "processor ms", "cold start s")
    print(text_table((*header, "host MiB", "GPU MiB", "could not run because"), bench_rows(report)))
    if rows := graph_rows(report):
        print(f"\n{text_table(('backend', 'graph', 'ms a run', 'runs a frame', 'ms a frame'), rows)}")
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"-> {output}")
