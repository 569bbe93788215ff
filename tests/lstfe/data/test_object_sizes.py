from __future__ import annotations

import numpy as np

from lstfe.data.check.anchors import SIZE_EDGES_PX
from lstfe.data.object_sizes import size_histogram


def test_sizes_are_counted_up_to_the_last_open_bin() -> None:
    assert sum(size_histogram(np.zeros(0), SIZE_EDGES_PX).values()) == 0
    counts = size_histogram(np.array([3.9, 4.0, 30.0, 600.0]), SIZE_EDGES_PX)
    assert {bin_px: count for bin_px, count in counts.items() if count} == {
        "0-4": 1,
        "4-8": 1,
        "24-32": 1,
        "512-": 1,
    }
