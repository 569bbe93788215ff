"""Charts as SVG: well formed, named, and with their points where they belong."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from lstfe.evaluation.report.charts import HEIGHT, WIDTH, Series, histogram, line_chart


def parse(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{chart}</div>")


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in element.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def test_a_chart_without_series_is_an_empty_grid() -> None:
    chart = parse(line_chart([], title="nothing", x_label="x", y_label="y"))
    assert chart.findall(".//polyline") == []
    assert len(chart.findall(".//line[@class='grid']")) == 12


def test_lines_run_from_corner_to_corner_and_stay_inside() -> None:
    series = [Series("down", [0.0, 1.0], [1.0, 0.0]), Series("flat", [0.0, 0.5, 1.0], [0.5] * 3)]
    chart = parse(line_chart(series, title="t", x_label="x", y_label="y"))
    down, flat = (points(line) for line in chart.findall(".//polyline"))
    assert down[0][0] < down[1][0]
    assert down[0][1] < down[1][1]  # SVG counts down
    assert flat[1] == pytest.approx(((down[0][0] + down[1][0]) / 2, (down[0][1] + down[1][1]) / 2))
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in down + flat)


def test_names_are_text_and_a_chart_has_a_title_for_those_who_do_not_see_it() -> None:
    chart = parse(line_chart([Series("a < b", [0.0], [0.0])], title="x & y", x_label="<", y_label="&"))
    svg = chart.find("svg")
    assert svg is not None
    assert (svg.attrib["role"], svg.attrib["aria-label"]) == ("img", "x & y")
    assert [item.text or item[0].tail for item in chart.findall(".//li")] == ["a < b"]


def test_series_differ_in_style() -> None:
    series = [Series(str(i), [0.0], [0.0]) for i in range(6)]
    chart = parse(line_chart(series, title="t", x_label="x", y_label="y"))
    assert len({line.attrib["class"] for line in chart.findall(".//polyline")}) == 6


def test_a_histogram_of_nothing_has_no_bars() -> None:
    chart = parse(histogram([("right", [0, 0]), ("wrong", [0, 0])], [0, 0.5, 1], title="t", x_label="score"))
    assert chart.findall("svg/rect") == []


def test_bars_grow_with_the_logarithm_and_one_is_seen_too() -> None:
    chart = parse(histogram([("right", [1, 10, 100])], [0, 1 / 3, 2 / 3, 1], title="t", x_label="score"))
    heights = [float(bar.attrib["height"]) for bar in chart.findall("svg/rect")]
    assert heights[0] > 0
    assert heights[2] == pytest.approx(2 * heights[1], abs=0.2)


def test_bars_of_two_series_stand_side_by_side_and_the_legend_sums_them() -> None:
    chart = parse(histogram([("right", [4, 5]), ("wrong", [1, 2000])], [0, 0.5, 1], title="t", x_label="s"))
    spans = sorted(
        (float(bar.attrib["x"]), float(bar.attrib["x"]) + float(bar.attrib["width"]))
        for bar in chart.findall("svg/rect")
    )
    assert all(right <= left + 0.2 for (_, right), (left, _) in pairwise(spans))
    assert ["".join(item.itertext()) for item in chart.findall(".//li")] == ["right: 9", "wrong: 2,001"]
    assert max(end for _, end in spans) <= WIDTH
    assert not any(math.isnan(x) for span in spans for x in span)
