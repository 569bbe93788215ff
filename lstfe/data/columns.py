"""Rows kept as columns: entries that are made when they are asked for, because data sets have millions of them.

A million rows take some 50 to 100 MB as columns, as Python objects several times as much, and loader processes
would each copy the objects they count references to. Shapes: N rows, I integers and F floats a row.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from lstfe.types import IntArray

Entry = TypeVar("Entry")
Key = TypeVar("Key", int, str)
Doubles = npt.NDArray[np.float64]
Places = IntArray | npt.NDArray[np.bool_] | slice
"""Which rows: their places, a mask over all, or a slice."""

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Layout(Generic[Entry]):
    """How an entry becomes a row of integers and floats, and the row an entry."""

    take: Callable[[Entry], tuple[Sequence[int], Sequence[float]]]
    build: Callable[[list[int], list[float]], Entry]
    num_integers: int
    num_floats: int

    def rows(self, entries: Sequence[Entry]) -> Rows[Entry]:
        """Return the entries as columns, which they may be already."""
        if isinstance(entries, Rows):
            return entries
        collector = Collector(self)
        for entry in entries:
            collector.add(entry)
        return collector.rows()


class Collector(Generic[Entry]):
    """Entries on their way into columns."""

    def __init__(self, layout: Layout[Entry]) -> None:
        self._layout = layout
        self._integers, self._floats = array("q"), array("d")

    def add(self, entry: Entry) -> None:
        """Take one more entry."""
        integers, floats = self._layout.take(entry)
        self._integers.extend(integers)
        self._floats.extend(floats)

    def rows(self) -> Rows[Entry]:
        """Return the entries so far."""
        layout = self._layout
        integers = np.array(self._integers, np.int64).reshape(-1, layout.num_integers)
        return Rows(
            layout, integers, np.array(self._floats, np.float64).reshape(len(integers), layout.num_floats)
        )


class Rows(Sequence[Entry]):
    """A sequence of entries, kept as numbers; equal to a list of the same entries."""

    def __init__(self, layout: Layout[Entry], integers: IntArray, floats: Doubles) -> None:
        self._layout = layout
        self.integers = integers
        """(N, I)"""
        self.floats = floats
        """(N, F)"""

    def select(self, places: Places) -> Rows[Entry]:
        """Return some of the rows."""
        return Rows(self._layout, self.integers[places], self.floats[places])

    def __len__(self) -> int:
        return len(self.integers)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Rows[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | Rows[Entry]:
        if isinstance(place, slice):
            return self.select(place)
        return self._layout.build(self.integers[place].tolist(), self.floats[place].tolist())

    def __iter__(self) -> Iterator[Entry]:
        for start in range(0, len(self), _BLOCK):
            block = slice(start, start + _BLOCK)
            yield from map(self._layout.build, self.integers[block].tolist(), self.floats[block].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __repr__(self) -> str:
        return f"<{len(self)} rows>"


class Groups(Mapping[Key, list[Entry]], Generic[Key, Entry]):
    """Rows by key: `find` says where the rows of a key begin and end in `order`, or raises KeyError."""

    def __init__(
        self,
        keys: Sequence[Key],
        find: Callable[[Key], tuple[int, int]],
        rows: Rows[Entry],
        order: IntArray,
    ) -> None:
        self._keys: Sequence[Key] = keys
        self._find: Callable[[Key], tuple[int, int]] = find
        self._rows, self._order = rows, order

    def __getitem__(self, key: Key) -> list[Entry]:
        start, end = self._find(key)
        return list(self._rows.select(self._order[start:end]))

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def places_of(keys: IntArray, ids: IntArray) -> IntArray:
    """Return the place of each key among the ids, -1 where it is not: (K,), (M,) -> (K,)."""
    if not len(ids):
        return np.full(len(keys), -1, np.int64)
    order = np.argsort(ids, kind="stable")
    found = order[np.minimum(np.searchsorted(ids, keys, sorter=order), len(ids) - 1)]
    return np.where(ids[found] == keys, found, -1)


def first_repeated(values: IntArray) -> int | None:
    """Return the place of a value that stands before it already; None where each occurs once. (N,) or (N, I)."""
    columns = np.atleast_2d(values.T)
    order = np.lexsort(columns[::-1])  # stable: of equal ones the first stays first
    again = np.flatnonzero((columns[:, order[1:]] == columns[:, order[:-1]]).all(axis=0))
    return int(order[again + 1].min()) if len(again) else None
