"""Names of metrics: who compares runs of half a year must find them unchanged."""

from __future__ import annotations

from collections.abc import Callable

from lstfe.data.coco_video import VideoAnnotations
from lstfe.evaluation.bootstrap import add_intervals
from lstfe.evaluation.errors import KINDS, break_down
from lstfe.evaluation.protocols import score
from lstfe.evaluation.records import DetectionRecord, scored_frames
from lstfe.evaluation.summary import summary_metrics

Scene = tuple[VideoAnnotations, list[DetectionRecord]]

FIGURES = {
    "coco": "AP AP50 AP75 APs APm APl AP_tiny AP_small16_32 AP_slow AP_medium AP_fast "
    "AR1 AR10 AR100 ARs ARm ARl",
    "voc07": "AP50",
    "voc07_inclusive": "AP50",
    "mega_vid": "AP50 AP50_slow AP50_medium AP50_fast",
    "ilsvrc": "AP",
}
OPERATING = "recall_at_0_1_fp recall_at_1_fp F1 F1_threshold fp_per_empty_frame"
COUNTS = "frame_stride num_frames num_empty_frames num_ground_truths num_detections num_videos"


def metrics(scene: Scene) -> dict[str, float]:
    scored = scored_frames(*scene)
    scores = add_intervals(score(*scene, FIGURES), scored, resamples=20, seed=0)
    return summary_metrics(scores, break_down(scored))


def test_every_name_is_one_of_those_that_have_always_been(random_scene: Callable[..., Scene]) -> None:
    """A figure without ground truth is left out, so what is there is a part of the list, and no other name is."""
    always = {f"errors.{kind}.{what}" for kind in KINDS for what in ("count", "gain_AP50")} | {"errors.AP50"}
    optional = set()
    for protocol, figures in FIGURES.items():
        always |= {f"{protocol}.{name}" for name in (OPERATING + " " + COUNTS).split()}
        optional |= {f"{protocol}.{name}{end}" for name in figures.split() for end in ("", "_low", "_high")}
        bins = ("small", "medium", "large", "tiny", "small16_32") if protocol == "coco" else ()
        motion = ("motion_slow", "motion_medium", "motion_fast") if protocol in ("coco", "mega_vid") else ()
        always |= {f"{protocol}.num_ground_truths_by_bin.{name}" for name in (*bins, *motion)}
    found = set(metrics(random_scene(0, num_videos=8, num_frames=12, categories=("drone",))))
    assert found - always - optional == set()
    assert always - found == set()
    assert {"voc07.AP50", "voc07.AP50_low", "voc07.AP50_high", "coco.AP", "coco.AP_low"} <= found


def test_ends_of_an_interval_stand_beside_their_figure(random_scene: Callable[..., Scene]) -> None:
    found = metrics(random_scene(0))
    assert found["voc07.AP50_low"] < found["voc07.AP50"] < found["voc07.AP50_high"]


def test_one_video_has_figures_without_ends(random_scene: Callable[..., Scene]) -> None:
    found = metrics(random_scene(0, num_videos=1))
    assert "voc07.AP50" in found
    assert not [name for name in found if name.endswith(("_low", "_high"))]
