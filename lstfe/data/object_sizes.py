"""How large the objects of a data set are, counted for its reports."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt


def size_histogram(sizes_px: npt.ArrayLike, edges_px: Sequence[int]) -> dict[str, int]:
    """Count sizes (N,), square roots of box areas in pixels, by ascending edges; the last bin is open."""
    counts, _ = np.histogram(sizes_px, (*edges_px, np.inf))
    names = [f"{low}-{high}" for low, high in pairwise(edges_px)] + [f"{edges_px[-1]}-"]
    return dict(zip(names, counts.tolist(), strict=True))
