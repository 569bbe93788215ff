from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lstfe.data.columns import Layout, Rows, first_repeated, places_of


@dataclass(frozen=True)
class Point:
    number: int
    x: float


POINTS: Layout[Point] = Layout(
    lambda point: ((point.number,), (point.x,)),
    lambda integers, floats: Point(integers[0], floats[0]),
    num_integers=1,
    num_floats=1,
)
THREE = [Point(3, 0.1), Point(1, -2.5), Point(2**53, 1e300)]


def test_no_entries_are_no_rows() -> None:
    rows = POINTS.rows([])
    assert rows == []
    assert (len(rows), list(rows)) == (0, [])
    assert (rows.integers.shape, rows.floats.shape) == ((0, 1), (0, 1))


def test_rows_are_equal_to_the_list_they_were_made_of() -> None:
    rows = POINTS.rows(THREE)
    assert rows == THREE == list(rows)
    assert rows != THREE[:2]
    assert rows != [*THREE[:2], Point(0, 0.0)]
    assert (rows[-1], list(rows[1:]), THREE[1] in rows) == (THREE[-1], THREE[1:], True)
    assert all(type(point.number) is int and type(point.x) is float for point in rows)
    with pytest.raises(IndexError):
        rows[3]


def test_rows_are_made_of_rows_without_copying() -> None:
    rows = POINTS.rows(THREE)
    assert POINTS.rows(rows) is rows


def test_rows_are_selected_by_place_or_mask() -> None:
    rows = POINTS.rows(THREE)
    assert rows.select(np.array([2, 0])) == [THREE[2], THREE[0]]
    assert rows.select(np.array([False, True, False])) == [THREE[1]]


def test_many_rows_come_in_order() -> None:
    points = [Point(number, number / 3) for number in range(10_000)]
    rows: Rows[Point] = POINTS.rows(points)
    assert list(rows) == points


def test_places_without_anything_to_find_are_minus_one() -> None:
    assert places_of(np.array([3, 4]), np.zeros(0, np.int64)).tolist() == [-1, -1]
    assert places_of(np.zeros(0, np.int64), np.array([3, 4])).tolist() == []


def test_places_are_those_of_a_search_one_by_one() -> None:
    generator = np.random.default_rng(5)
    ids, keys = generator.permutation(50)[:30], generator.integers(-5, 60, 100)
    expected = [ids.tolist().index(key) if key in ids else -1 for key in keys.tolist()]
    assert places_of(keys, ids).tolist() == expected


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ([], None),
        ([4], None),
        ([4, 2, 3], None),
        ([4, 2, 4, 2], 2),
        ([[1, 2], [2, 1]], None),
        ([[1, 2], [2, 1], [3, 3], [2, 1], [1, 2]], 3),
    ],
)
def test_the_first_repeated_value_is_found(values: list[object], place: int | None) -> None:
    assert first_repeated(np.array(values, np.int64)) == place
