"""One process of a training that is going to be killed: run by path under torchrun, or forked by forge.py.

python worker.py CONFIG PREPARED_DIR FOLDER

FOLDER gets `checkpoints`, `pid.RANK` as soon as the process trains, `trace` (a line an update, by rank 0) and, in the
end, `weights.safetensors`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lstfe.params import load_config
from lstfe.training.checkpoint import save_weights
from lstfe.training.distributed import current_world
from lstfe.training.loop import train


def main(config: str, prepared_dir: str, folder: str) -> None:
    """Train to the end, or until killed."""
    place, world = Path(folder), current_world()
    (place / f"pid.{world.rank}").write_text(str(os.getpid()))

    def log(metrics: dict[str, float], iteration: int) -> None:
        with (place / "trace").open("a") as file:
            file.write(f"{iteration}\n")

    trained = train(
        load_config(config),
        prepared_dir=Path(prepared_dir),
        checkpoint_dir=place / "checkpoints",
        log=log,
        validate=None,
        progress=False,
    )
    if world.is_main:
        save_weights(trained.model, place / "weights.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
