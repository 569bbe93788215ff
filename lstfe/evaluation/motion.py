"""How fast objects move, from the tracks of the annotations: motion IoU (Zhu et al., FGFA, ICCV 2017).

The motion IoU of an object in a frame is the mean IoU of its box with the boxes of the same track in all other
annotated frames within 10 frames. Slow objects keep their place (0.9 and more), fast ones leave it (0.7 and less).
"""

from __future__ import annotations

import numpy as np

from lstfe.evaluation.encounters import Floats, Ints, box_sides, paired_iou

NEARBY_FRAMES = 10
"""Furthest frame on either side that the mean looks at."""


def motion_iou(videos: Ints, tracks: Ints, frame_ids: Ints, boxes: Floats) -> Floats:
    """Return the motion IoU of annotated boxes: (G,), (G,), (G,), (G, 4) xywh -> (G,).

    NaN where the track is unknown (negative), or is not seen again within `NEARBY_FRAMES`.
    """
    known = np.flatnonzero(tracks >= 0)
    order = known[np.lexsort((frame_ids[known], tracks[known], videos[known]))]
    videos, tracks, frame_ids = videos[order], tracks[order], frame_ids[order]
    sides = box_sides(boxes[order])
    sums, counts = np.zeros(len(order)), np.zeros(len(order), np.int64)
    for step in range(1, len(order)):
        gaps = frame_ids[step:] - frame_ids[:-step]
        same = (videos[step:] == videos[:-step]) & (tracks[step:] == tracks[:-step]) & (gaps <= NEARBY_FRAMES)
        if not same.any():
            break
        earlier = np.flatnonzero(same & (gaps > 0))
        ious = paired_iou(sides, earlier, sides, earlier + step)
        for rows in (earlier, earlier + step):  # no row occurs twice in either
            sums[rows] += ious
            counts[rows] += 1
    motion = np.full(len(boxes), np.nan)
    motion[order] = np.divide(sums, counts, out=np.full(len(order), np.nan), where=counts > 0)
    return motion
