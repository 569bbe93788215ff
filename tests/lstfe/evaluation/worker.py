"""One evaluating process for the tests that kill it or start several: run by path, never imported.

python worker.py CONFIG PREPARED_DIR WEIGHTS STATE_DIR OUTPUT_DIR [DIE_AT_FRAME]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from lstfe.data.prepared import load_split
from lstfe.evaluation.protocols import score
from lstfe.evaluation.records import save_detections
from lstfe.evaluation.sharding import detect_in_shards
from lstfe.model.detector import LSTFENet
from lstfe.params import load_config
from lstfe.training.checkpoint import load_weights
from lstfe.training.distributed import current_world


def main(config_path: str, prepared: str, weights: str, state: str, output: str, die_at: str = "0") -> None:
    """Detect on the split `val`; rank 0 writes what was found and its scores, or dies (SIGKILL) at a frame."""

    def die(done: int, total: int) -> None:
        if done == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1 + current_world().size)  # which must not matter either
    config = load_config(Path(config_path))
    annotations, store = load_split(Path(prepared), "val")
    model = LSTFENet(config.model, num_classes=len(annotations.label_names) + 1, pretrained=False)
    load_weights(model, Path(weights))
    records = detect_in_shards(model, config, annotations, store, state_dir=Path(state), progress=die)
    if records is not None:
        save_detections(records, Path(output) / "detections.json")
        scores = score(annotations, records, config.evaluate.protocols)
        (Path(output) / "metrics.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(*sys.argv[1:])
