"""The fleet's arithmetic: whatever is scarcest decides, and the numbers add up."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.fleet import Cameras, Node, NodeFigures, read_figures, size_fleet, table

FIGURES = NodeFigures(
    machine="made up",
    preset="tiny",
    image_size=(240, 320),
    num_frames=60,
    seconds_per_frame=0.09,
    decode_seconds_per_frame=0.01,
    mib_per_process=1024.0,
    mib_per_stream=100.0,
    bytes_per_frame=1000.0,
    result_bytes_per_frame=6000.0,
)
NODE = Node(cores=10, memory_gib=100.0, network_gbit=1.0, load=1.0)


def test_no_cameras_take_one_node_that_waits() -> None:
    assert size_fleet(FIGURES, Cameras(number=0), NODE).nodes == 1


def test_cores_are_the_frames_times_their_seconds() -> None:
    fleet = size_fleet(FIGURES, Cameras(number=1000, frames_per_second=2.0), NODE)

    assert fleet.nodes_by_resource["cores"] == pytest.approx(20.0)  # 2000 frames/s * 0.1 s / 10 cores
    assert (fleet.bottleneck, fleet.nodes, fleet.total_cores) == ("cores", 20, 200)
    assert fleet.cameras_per_node == 50
    assert fleet.ingest_gbit == pytest.approx(0.016)
    assert fleet.results_per_second == 4000


@pytest.mark.parametrize(
    ("figures", "bottleneck", "nodes"),
    [
        (replace(FIGURES, mib_per_process=10 * 1024.0), "memory", 100),
        (replace(FIGURES, bytes_per_frame=10_000_000.0), "network", 160),
    ],
)
def test_the_scarcest_resource_decides(figures: NodeFigures, bottleneck: str, nodes: int) -> None:
    fleet = size_fleet(figures, Cameras(number=1000, frames_per_second=2.0), NODE)

    assert (fleet.bottleneck, fleet.nodes) == (bottleneck, nodes)


def test_a_reserve_takes_more_nodes() -> None:
    cameras = Cameras(number=1000, frames_per_second=2.0)

    assert size_fleet(FIGURES, cameras, replace(NODE, load=0.5)).nodes == 40


def test_the_measured_file_is_read_and_gives_the_table_of_the_docs(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text(json.dumps(asdict(FIGURES)))
    assert read_figures(tmp_path / "fleet.json") == FIGURES
    root = Path(__file__).parents[2]

    shown = table(read_figures(root / "docs" / "benchmarks" / "fleet.json"), Cameras(), Node())

    assert shown in (root / "docs" / "scale.md").read_text(), "docs/scale.md shows another table"
