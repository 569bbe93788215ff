"""What a user of a detector asks: how much it finds at so many false alarms, and how it does where nothing is.

Here one score threshold holds for all labels together, as it will when the detector runs. Detections with equal
scores pass a threshold together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lstfe.evaluation.encounters import Flags, Floats, Ints

FALSE_POSITIVE_RATES = {"recall_at_0_1_fp": 0.1, "recall_at_1_fp": 1.0}
"""Name of the figure -> false positives a frame that it allows."""


@dataclass(frozen=True, slots=True)
class JudgedDetections:
    """Detections, best score first, and what became of them; one that is neither right nor wrong does not count."""

    scores: Floats
    frames: Ints
    right: Flags
    wrong: Flags


def operating_figures(
    detections: JudgedDetections, *, num_ground_truths: int, truth_frames: Ints, num_frames: int
) -> dict[str, float | None]:
    """Return recall at 0.1 and 1 false positive a frame, best F1, its threshold, false positives on empty frames.

    `truth_frames` are the frames with something annotated; the others are empty. All are None without ground
    truth; threshold and false positives on empty frames also where nothing is found, the latter also where no
    frame is empty.
    """
    names = (*FALSE_POSITIVE_RATES, "F1", "F1_threshold", "fp_per_empty_frame")
    if num_ground_truths == 0:
        return dict.fromkeys(names)
    scores = detections.scores
    passed = np.flatnonzero(np.append(scores[1:] != scores[:-1], [True] * bool(len(scores))))
    right = np.cumsum(detections.right)[passed]
    wrong = np.cumsum(detections.wrong)[passed]
    figures: list[float | None] = []
    for rate in FALSE_POSITIVE_RATES.values():
        allowed = np.searchsorted(wrong, rate * num_frames, side="right")
        figures.append(float(right[allowed - 1]) / num_ground_truths if allowed else 0.0)
    f1 = 2 * right / (right + wrong + num_ground_truths)
    best = float(f1.max(initial=0.0))
    if best == 0.0:
        return dict(zip(names, (*figures, best, None, None), strict=True))
    threshold = float(scores[passed[f1.argmax()]])
    empty = np.ones(num_frames, bool)
    empty[truth_frames] = False
    alarms = int(np.count_nonzero(empty[detections.frames[: passed[f1.argmax()] + 1]]))
    on_empty = alarms / int(empty.sum()) if empty.any() else None
    return dict(zip(names, (*figures, best, threshold, on_empty), strict=True))
