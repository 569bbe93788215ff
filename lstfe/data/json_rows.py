"""A large JSON object of lists, streamed: one row after the other, with its line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lstfe.data.faults import AnnotationError, fault

_CHUNK_BYTES = 1 << 20
_MAX_VALUE = 1 << 24
"""Characters of one row; what is longer is broken."""
_BLANK = " \t\r\n"


class Row(NamedTuple):
    """One row of a list and where it stands."""

    section: str
    path: Path
    line: int
    content: Any

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}:{self.line}"


def read_rows(path: Path, sections: frozenset[str], *, whole: frozenset[str] = frozenset()) -> Iterator[Row]:
    """Yield the rows of the lists named by `sections`, in the file's order; other keys are passed over.

    What the keys of `whole` hold comes as one row each, where the file has them.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(path, iter(lambda: file.read(_CHUNK_BYTES), b"")).rows(sections, whole)
    except OSError as error:
        raise AnnotationError(f"{path}: not readable ({error.strerror}), expected a JSON file") from None


class _Reader:
    """A window on the text that slides forward; `_place` is where reading goes on."""

    def __init__(self, path: Path, chunks: Iterator[bytes]) -> None:
        self._path = path
        self._chunks = chunks
        self._decode_bytes = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self._text, self._place, self._line = "", 0, 1
        self._at_end = False

    def rows(self, sections: frozenset[str], whole: frozenset[str]) -> Iterator[Row]:
        self._expect("{", "a JSON object with videos, images, annotations, categories")
        seen: set[str] = set()
        more = self._peek() != "}"
        while more:
            key = self._value("a key")
            if not isinstance(key, str) or key in seen:
                raise fault(self._where, key, "a key that has not come yet")
            seen.add(key)
            self._expect(":", f"':' after {key!r}")
            if key in sections:
                yield from self._list(key)
            elif key in whole:
                yield self._row(key, f"the value of {key!r}")
            else:
                self._value(f"the value of {key!r}")
            more = self._peek() == ","
            if more:
                self._expect(",", "','")
        self._expect("}", "',' or '}'")
        if self._peek():
            raise fault(self._where, self._peek(), "the end of the file after the JSON object")
        if missing := sorted(sections - seen):
            raise AnnotationError(
                f"{self._where}: found no {', '.join(missing)}, expected a COCO-VID file with these lists"
            )

    def _list(self, section: str) -> Iterator[Row]:
        self._expect("[", f"a list of {section}")
        expected = f"one of {section}"
        more = self._peek() != "]"
        while more:
            yield self._row(section, expected)
            more = self._peek() == ","
            self._place += more
        self._expect("]", "',' or ']'")

    def _row(self, section: str, expected: str) -> Row:
        self._peek()
        line = self._line
        return Row(section, self._path, line, self._value(expected))

    @property
    def _where(self) -> str:
        return f"{self._path}:{self._line}"

    def _peek(self) -> str:
        """Skip blanks and return the next character, empty at the end of the file."""
        if self._place < len(self._text) and (character := self._text[self._place]) not in _BLANK:
            return character  # as a rule, and a file has millions of rows
        while True:
            start = self._place
            while self._place < len(self._text) and self._text[self._place] in _BLANK:
                self._place += 1
            self._line += self._text.count("\n", start, self._place)
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _expect(self, character: str, expected: str) -> None:
        found = self._peek()
        if found != character:
            raise fault(self._where, found or "the end of the file", expected)
        self._place += 1

    def _value(self, expected: str) -> Any:
        """Read one whole JSON value, and as much of the file as it takes."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except (ValueError, RecursionError) as error:
                if not self._at_end and len(self._text) - self._place < _MAX_VALUE:
                    self._more()
                    continue
                self._fail(error, expected)
            # A number that ends with the window may go on behind it.
            if end < len(self._text) or not self._more():
                self._line += self._text.count("\n", self._place, end)
                self._place = end
                return value

    def _fail(self, error: Exception, expected: str) -> NoReturn:
        line = self._line
        if isinstance(error, json.JSONDecodeError):
            line += self._text.count("\n", self._place, error.pos)
            reason = error.msg
        else:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise AnnotationError(
            f"{self._path}:{line}: not readable as JSON ({reason}), expected {expected}"
        ) from None

    def _more(self) -> bool:
        """Slide the window on by one chunk; False at the end of the file."""
        chunk = next(self._chunks, b"")
        self._at_end = not chunk
        try:
            text = self._decode_bytes(chunk, not chunk)
        except UnicodeDecodeError as error:
            line = self._line + self._text.count("\n", self._place) + chunk[: error.start].count(b"\n")
            raise AnnotationError(f"{self._path}:{line}: not readable ({error}), expected UTF-8") from None
        self._text, self._place = self._text[self._place :] + text, 0
        return not self._at_end


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
