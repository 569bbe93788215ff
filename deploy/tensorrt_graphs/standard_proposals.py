"""What an LstfeProposals node computes, in standard ONNX: the checkable twin of the plugin's operator.

The same steps in the same order as `deploy.export_onnx.ProposalsGraph`, of which a test holds it equal. ONNX's text
form is used because it reads like the formulas.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, parser

from lstfe.boxes import MAX_LOG_SCALE

# Below every score: the mark of a box that takes no part.
LOWEST = float(np.finfo(np.float32).min)

# Names as in lstfe.boxes.decode; sizes in pixels; M anchors of the map and `pre_nms_top_k` empty ones behind them.
_BODY = """
<ir_version: 10, opset_import: ["" : 20]>
proposals (float[1,A,h,w] objectness, float[1,D,h,w] box_deltas, float[A,4] cell_anchors, int64[2] image_size)
    => (float[1,K,4] boxes, bool[1,K] valid)
{
    logit_rows = Transpose <perm = [0, 2, 3, 1]> (objectness)
    logits = Reshape (logit_rows, flat)
    delta_rows = Transpose <perm = [0, 2, 3, 1]> (box_deltas)
    deltas = Reshape (delta_rows, rows_of_4)

    height = Shape <start = 2, end = 3> (objectness)
    width = Shape <start = 3, end = 4> (objectness)
    map_size = Concat <axis = 0> (height, width)
    num_rows = Squeeze (height)
    num_columns = Squeeze (width)
    rows = Range (zero, num_rows, one)
    columns = Range (zero, num_columns, one)
    row_numbers = Cast <to = 1> (rows)
    column_numbers = Cast <to = 1> (columns)
    row_middles = Add (row_numbers, half)
    column_middles = Add (column_numbers, half)
    row_centers = Mul (row_middles, stride)
    centers_x = Mul (column_middles, stride)
    centers_y = Unsqueeze (row_centers, axis_1)
    grid_y = Expand (centers_y, map_size)
    grid_x = Expand (centers_x, map_size)
    plane_y = Unsqueeze (grid_y, axis_last)
    plane_x = Unsqueeze (grid_x, axis_last)
    centers = Concat <axis = 2> (plane_x, plane_y, plane_x, plane_y)
    cells = Unsqueeze (centers, axis_2)
    anchors_of_cells = Add (cells, cell_anchors)
    anchors = Reshape (anchors_of_cells, rows_of_4)

    all_logits = Concat <axis = 0> (logits, no_logits)
    all_deltas = Concat <axis = 0> (deltas, no_boxes)
    all_anchors = Concat <axis = 0> (anchors, no_boxes)
    best_logits, best = TopK (all_logits, pre_nms_top_k)
    best_deltas = Gather <axis = 0> (all_deltas, best)
    best_anchors = Gather <axis = 0> (all_anchors, best)

    dx, dy, log_width, log_height = Split <axis = 1, num_outputs = 4> (best_deltas)
    x1, y1, x2, y2 = Split <axis = 1, num_outputs = 4> (best_anchors)
    sum_x = Add (x1, x2)
    sum_y = Add (y1, y2)
    x = Div (sum_x, two)
    y = Div (sum_y, two)
    anchor_width = Sub (x2, x1)
    anchor_height = Sub (y2, y1)
    step_x = Mul (dx, anchor_width)
    step_y = Mul (dy, anchor_height)
    center_x = Add (x, step_x)
    center_y = Add (y, step_y)
    capped_width = Min (log_width, max_log_scale)
    capped_height = Min (log_height, max_log_scale)
    scale_x = Exp (capped_width)
    scale_y = Exp (capped_height)
    box_width = Mul (anchor_width, scale_x)
    box_height = Mul (anchor_height, scale_y)
    half_width = Div (box_width, two)
    half_height = Div (box_height, two)
    left = Sub (center_x, half_width)
    top = Sub (center_y, half_height)
    right = Add (center_x, half_width)
    bottom = Add (center_y, half_height)
    decoded = Concat <axis = 1> (left, top, right, bottom)

    sizes = Cast <to = 1> (image_size)
    limits = Gather <axis = 0> (sizes, width_height_twice)
    not_negative = Max (decoded, no_pixels)
    clipped = Min (not_negative, limits)
    clipped_left, clipped_top, clipped_right, clipped_bottom = Split <axis = 1, num_outputs = 4> (clipped)
    side_x = Sub (clipped_right, clipped_left)
    side_y = Sub (clipped_bottom, clipped_top)
    shorter = Min (side_x, side_y)
    are_large = Greater (shorter, min_size_px)
    is_large = Squeeze (are_large, axis_1)
    scores = Where (is_large, best_logits, lowest)

    one_frame = Unsqueeze (clipped, axis_0)
    one_class = Unsqueeze (scores, axes_01)
    selected = NonMaxSuppression (one_frame, one_class, post_nms_top_k, nms_iou, lowest)
    places = Gather <axis = 1> (selected, last_column)
    one_each = Cast <to = 9> (places)
    found = Squeeze (one_each, axis_1)
    marks = Or (found, always)
    nothing = Less (scores, lowest)
    keep = ScatterND (nothing, places, marks)
    kept_scores = Where (keep, scores, lowest)
    padded_scores = Concat <axis = 0> (kept_scores, missing_logits)
    padded_boxes = Concat <axis = 0> (clipped, missing_boxes)
    final_scores, order = TopK (padded_scores, post_nms_top_k)
    ordered = Gather <axis = 0> (padded_boxes, order)
    is_valid = Greater (final_scores, lowest)
    factors = Cast <to = 1> (is_valid)
    factor_rows = Unsqueeze (factors, axis_1)
    masked = Mul (ordered, factor_rows)
    boxes = Unsqueeze (masked, axis_0)
    valid = Unsqueeze (is_valid, axis_0)
}
"""


def standard_proposals(
    cell_anchors: npt.NDArray[np.float32],
    *,
    stride: float,
    pre_nms_top_k: int,
    post_nms_top_k: int,
    nms_iou: float,
    min_size_px: float,
) -> onnx.ModelProto:
    """Build objectness (1, A, h, w), box_deltas (1, 4A, h, w), image_size (2,) int64 -> boxes (1, K, 4), valid (1, K).

    Anchors (A, 4) are pixels around a cell's center, `stride` is the pixels a cell.
    """
    model = parser.parse_model(_BODY)
    missing = max(0, post_nms_top_k - pre_nms_top_k)
    numbers: dict[str, npt.NDArray[np.generic] | float | int | list[int]] = {
        "cell_anchors": np.asarray(cell_anchors, np.float32),
        "stride": stride,
        "half": 0.5,
        "two": 2.0,
        "max_log_scale": MAX_LOG_SCALE,
        "min_size_px": min_size_px,
        "no_pixels": 0.0,
        "lowest": LOWEST,
        "no_logits": np.full(pre_nms_top_k, LOWEST, np.float32),
        "no_boxes": np.zeros((pre_nms_top_k, 4), np.float32),
        "missing_logits": np.full(missing, LOWEST, np.float32),
        "missing_boxes": np.zeros((missing, 4), np.float32),
        "pre_nms_top_k": [pre_nms_top_k],
        "post_nms_top_k": [post_nms_top_k],
        "nms_iou": np.array([nms_iou], np.float32),
        "always": np.array(True),
        "flat": [-1],
        "rows_of_4": [-1, 4],
        "zero": 0,
        "one": 1,
        "axis_0": [0],
        "axis_1": [1],
        "axis_2": [2],
        "axis_last": [-1],
        "axes_01": [0, 1],
        "last_column": [2],
        "width_height_twice": [1, 0, 1, 0],
    }
    for name, value in numbers.items():
        is_float = isinstance(value, float)
        array = (
            value if isinstance(value, np.ndarray) else np.array(value, np.float32 if is_float else np.int64)
        )
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model
