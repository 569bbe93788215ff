from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deploy.graphs import Form, GraphSizes, graphs_of
from lstfe.config import Config, InferenceConfig
from lstfe.model.methods import resolve_method

CONFIG = Config(inference=InferenceConfig(lookahead=4, num_relation=6, num_alignment=3))


def of_method(method: Any) -> Config:
    return resolve_method(replace(CONFIG, model=replace(CONFIG.model, method=method)))


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        ("faster_rcnn", (0, 0, 0)),
        ("selsa", (0, 0, 2)),
        ("rdn", (0, 6, 0)),
        ("stsn", (3, 0, 0)),
        ("lstfe", (3, 6, 2)),
    ],
)
def test_a_method_has_the_frames_that_its_parts_use(method: str, counts: tuple[int, int, int]) -> None:
    sizes = GraphSizes.of(of_method(method))
    assert (sizes.num_alignment, sizes.num_relation, sizes.num_long_term) == counts


def test_only_methods_with_alignment_have_its_graph() -> None:
    with_alignment = {
        method
        for method in ("faster_rcnn", "selsa", "rdn", "stsn", "lstfe")
        if "align" in {graph.name for graph in graphs_of(of_method(method))}
    }
    assert with_alignment == {"stsn", "lstfe"}


def test_the_relation_graph_takes_three_arrays_a_role() -> None:
    inputs = {
        method: len(graphs_of(of_method(method))[-2].inputs) for method in ("faster_rcnn", "selsa", "lstfe")
    }
    assert inputs == {"faster_rcnn": 3, "selsa": 6, "lstfe": 9}


@pytest.mark.parametrize("form", ["plain", "commuted"])
def test_one_graph_s_inputs_are_outputs_of_those_before_it(form: Form) -> None:
    known = {"frame", "short_term_features", "original_size"}
    for graph in graphs_of(of_method("lstfe"), form):
        roles = {name.removeprefix("short_term_").removeprefix("long_term_") for name in graph.inputs}
        assert roles - {"features"} <= known | {"features"}, graph.name
        known |= set(graph.outputs)


def test_the_commuted_form_reads_features_again_only_for_a_cascade() -> None:
    config = of_method("lstfe")
    support, align = graphs_of(config, "commuted")[2:4]
    assert (support.inputs, support.outputs) == (("features",), ("support_maps", "offset_response"))
    assert align.inputs == ("features", "short_term_support_maps", "short_term_offset_response")
    cascade = graphs_of(of_method("stsn"), "commuted")[3]
    assert cascade.inputs[:2] == ("features", "short_term_features")


def test_both_forms_are_one_where_nothing_is_aligned() -> None:
    config = of_method("selsa")
    assert graphs_of(config, "commuted") == graphs_of(config)
