"""Lists of JSON objects as columns, checked as a whole; only where something is wrong is the entry looked for."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from lstfe.errors import UserError
from lstfe.evaluation.encounters import Floats, Ints

_NUMBERS = {int, float}  # not bool, which is an int to Python
_FARTHEST = 1e9
"""Pixels that no image has; squares of far larger numbers overflow."""
Fault = Callable[[Any], str | None]
"""What is wrong with a value, None where nothing is."""


class ScoreFileError(UserError):
    """A file cannot be scored; the message names it and the entry."""


@contextmanager
def without_collection() -> Iterator[None]:
    """Stop the collector, which looks through millions of new objects again and again and finds nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_json(path: Path) -> Any:
    """Read a JSON file; NaN and Infinity, which JSON has not, are read too, so that their entry can be named."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ScoreFileError(f"{path}: not readable ({error.strerror}), expected a JSON file") from None
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ScoreFileError(f"{path}: not readable as JSON ({error})") from None


@dataclass(frozen=True, slots=True)
class Entries:
    """A list of JSON objects of one file."""

    path: Path
    name: str
    """What the list is called in messages."""
    rows: list[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, key: str) -> list[Any]:
        """Return one value of every object."""
        try:
            return list(map(itemgetter(key), self.rows))
        except (KeyError, TypeError, IndexError):
            self._refuse_form(key)
            raise

    def unique(self, key: str) -> list[Hashable]:
        """Return a column of ids, numbers or texts, each of which occurs once."""
        values = self.column(key)
        seen: set[Hashable] = set()
        try:
            if len(set(values)) == len(values) and set(map(type, values)) <= {int, str}:
                return values
        except TypeError:
            pass
        for number, value in enumerate(values):
            if not isinstance(value, (int, str)):
                raise self.refusal(number, f"{key} {value!r} is not a number or a text")
            if value in seen:
                raise self.refusal(number, f"{key} {value!r} occurs twice, expected each once")
            seen.add(value)
        return values

    def places(self, key: str, table: Mapping[Any, int], expected: str) -> Ints:
        """Look a column up in a table; the first value that it does not have is refused."""
        values = self.column(key)
        try:
            return np.fromiter(map(table.__getitem__, values), np.int64, len(values))
        except (KeyError, TypeError):
            self._refuse_first(
                values,
                lambda value: (
                    None
                    if isinstance(value, Hashable) and value in table
                    else f"{key} {value!r} is unknown, expected {expected}"
                ),
            )
            raise

    def numbers(self, key: str, *, default: float | None = None, least: float = -math.inf) -> Floats:
        """Return a column of finite numbers; with a default it stands in where there is none, or null."""
        if default is None:
            values = self.column(key)
        else:
            values = [default if row.get(key) is None else row[key] for row in self.rows]
        try:
            is_well = set(map(type, values)) <= _NUMBERS
            found = np.fromiter(values, np.float64, len(values))
        except (TypeError, ValueError, OverflowError):
            is_well, found = False, np.full(len(values), np.nan)
        if not is_well or not (np.isfinite(found) & (found >= least)).all():
            floor = "" if least == -math.inf else f" >= {least:g}"
            self._refuse_first(
                values,
                lambda value: (
                    None
                    if _is_number(value) and value >= least
                    else f"{key} {repr(value)[:60]} is not a finite number{floor}"
                ),
            )
        return found

    def flags(self, key: str) -> npt.NDArray[np.bool_]:
        """Return a column of 0 and 1, or false and true; what is absent or null is false."""
        values = [row.get(key) for row in self.rows]
        if not set(map(type, values)) <= {*_NUMBERS, bool, type(None)}:
            self._refuse_first(
                values,
                lambda value: (
                    None
                    if value is None or type(value) is bool or _is_number(value)
                    else f"{key} {repr(value)[:60]} is neither 0 nor 1"
                ),
            )
        return np.fromiter(map(bool, values), np.bool_, len(values))

    def boxes(self, key: str = "bbox") -> Floats:
        """Return a column of boxes [x, y, width, height], sizes >= 0: (N, 4)."""
        values = self.column(key)
        try:
            flat = np.fromiter(chain.from_iterable(values), np.float64)
            is_well = set(map(len, values)) <= {4} and set(map(type, chain.from_iterable(values))) <= _NUMBERS
            is_well = is_well and bool((np.abs(flat) <= _FARTHEST).all())
        except (TypeError, ValueError, OverflowError):
            is_well = False
        if not is_well or (flat.reshape(-1, 4)[:, 2:] < 0).any():
            self._refuse_first(values, _box_fault)
        return flat.reshape(-1, 4)

    def refusal(self, number: int, fault: str) -> ScoreFileError:
        """Return the error that names an entry."""
        row = self.rows[number]
        known = f" (id {row['id']!r})" if isinstance(row, Mapping) and "id" in row else ""
        return ScoreFileError(f"{self.path}: {self.name} {number}{known}: {fault}")

    def _refuse_first(self, values: list[Any], fault: Fault) -> None:
        for number, value in enumerate(values):
            found = fault(value)
            if found is not None:
                raise self.refusal(number, found)

    def _refuse_form(self, key: str) -> None:
        for number, row in enumerate(self.rows):
            if not isinstance(row, Mapping):
                raise self.refusal(number, f"{str(row)[:60]!r} is not an object, expected {{...}}")
            if key not in row:
                raise self.refusal(number, f"has no {key!r}, found {', '.join(map(str, row)) or 'nothing'}")


def section(content: Mapping[str, Any], key: str, path: Path) -> Entries:
    """Return one of a file's lists."""
    rows = content.get(key)
    if not isinstance(rows, list):
        raise ScoreFileError(f"{path}: has no list {key!r}, expected images, annotations and categories")
    return Entries(path, f"{key} entry", rows)


def _is_number(value: Any) -> bool:
    try:
        return type(value) in _NUMBERS and math.isfinite(float(value))
    except OverflowError:
        return False


def _box_fault(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        return f"bbox {str(value)[:60]} is not four finite numbers [x, y, width, height]"
    if max(map(abs, value)) > _FARTHEST:
        return f"bbox {str(value)[:60]} is no box of an image, expected pixels [x, y, width, height]"
    if min(map(float, value[2:])) < 0:
        return f"bbox {value} has a negative size, expected [x, y, width, height] in pixels"
    return None
