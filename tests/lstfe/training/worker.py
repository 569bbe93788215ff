"""One training process for the tests that kill it or start several: run by path, never imported.

python worker.py CONFIG PREPARED_DIR CHECKPOINT_DIR OUTPUT_DIR [DIE_AT_UPDATE]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from lstfe.params import load_config
from lstfe.training.checkpoint import save_weights
from lstfe.training.distributed import current_world
from lstfe.training.loop import train


def main(config: str, prepared_dir: str, checkpoint_dir: str, output_dir: str, die_at: str = "0") -> None:
    """Train; rank 0 writes weights.safetensors and history.json, or dies (SIGKILL) as it logs DIE_AT."""

    def log(metrics: dict[str, float], iteration: int) -> None:
        if iteration == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)

    trained = train(
        load_config(config),
        prepared_dir=Path(prepared_dir),
        checkpoint_dir=Path(checkpoint_dir),
        log=log,
        validate=None,
        progress=False,
    )
    if current_world().is_main:
        save_weights(trained.model, Path(output_dir) / "weights.safetensors")
        (Path(output_dir) / "history.json").write_text(json.dumps(trained.history))


if __name__ == "__main__":
    main(*sys.argv[1:])
