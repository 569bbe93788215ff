"""XML, streamed: complete elements with the line they begin on, and nothing but elements.

A document type is refused, and with it every entity that could expand or fetch anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from lstfe.data.faults import AnnotationError, fault
from lstfe.data.importers.grammar import MAX_PX, parse_integer, parse_number

_CHUNK_BYTES = 1 << 16


@dataclass(slots=True)
class Element:
    """One element: `text` is its character data, without that of its children."""

    path: Path
    line: int
    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}:{self.line}"

    def find(self, tag: str) -> Element | None:
        """Return the one child with this tag, None where there is none."""
        found = [child for child in self.children if child.tag == tag]
        if len(found) > 1:
            raise AnnotationError(f"{found[1].where}: found a second <{tag}> in <{self.tag}>, expected one")
        return found[0] if found else None

    def child(self, tag: str) -> Element:
        """Return the one child with this tag; AnnotationError where there is none."""
        found = self.find(tag)
        if found is None:
            raise AnnotationError(f"{self.where}: found no <{tag}> in <{self.tag}>, expected one")
        return found

    def attribute(self, name: str) -> str:
        """Return an attribute; AnnotationError where it is missing."""
        if name not in self.attributes:
            raise AnnotationError(f"{self.where}: found no {name!r} on <{self.tag}>, expected {name}=...")
        return self.attributes[name]

    def integer(self, *, low: int, high: int) -> int:
        """Return the element's own text as an integer of low..high."""
        return parse_integer(self.text.strip(), self.where, f"<{self.tag}>", low=low, high=high)

    def number(self) -> float:
        """Return the element's own text as a number of pixels."""
        return parse_number(self.text.strip(), self.where, f"<{self.tag}>")

    def name(self) -> str:
        """Return the element's own text, which must not be empty."""
        text = self.text.strip()
        if not text:
            raise fault(self.where, self.text, f"a name in <{self.tag}>")
        return text

    def size(self) -> tuple[int, int]:
        """Return (height, width) from children of these names; 0 each where unknown."""
        height, width = (self.child(tag).integer(low=0, high=MAX_PX) for tag in ("height", "width"))
        return (height, width) if height and width else (0, 0)


def read_elements(path: Path, root: str, *tags: str) -> Iterator[Element]:
    """Yield each outermost element with one of `tags` in a file whose root element is `root`."""
    collector = _Collector(path, root, frozenset(tags))
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                collector.parser.Parse(chunk, False)
                yield from collector.take()
            collector.parser.Parse(b"", True)
            yield from collector.take()
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise AnnotationError(f"{path}:{error.lineno}: not well-formed ({reason}), expected XML") from None
    except OSError as error:
        raise AnnotationError(f"{path}: not readable ({error.strerror}), expected an XML file") from None
    except (ValueError, LookupError) as error:
        if isinstance(error, AnnotationError):
            raise
        line = collector.parser.CurrentLineNumber
        raise AnnotationError(f"{path}:{line}: not readable as XML ({error}), expected UTF-8") from None


def read_root(path: Path, root: str) -> Element:
    """Return the whole of a small file."""
    [element] = read_elements(path, root, root)
    return element


class _Collector:
    """Builds wanted elements from the parser's events; everything outside of them is passed over."""

    def __init__(self, path: Path, root: str, tags: frozenset[str]) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._refuse
        self._path, self._root, self._tags = path, root, tags
        self._open: list[Element] = []
        self._complete: list[Element] = []
        self._is_first = True

    def take(self) -> list[Element]:
        """Return what is complete since the last call."""
        complete, self._complete = self._complete, []
        return complete

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if self._is_first and tag != self._root:
            raise fault(f"{self._path}:{line}", f"<{tag}>", f"<{self._root}> as the outermost element")
        self._is_first = False
        if self._open or tag in self._tags:
            element = Element(self._path, line, tag, attributes)
            if self._open:
                self._open[-1].children.append(element)
            self._open.append(element)

    def _end(self, tag: str) -> None:
        if self._open:
            element = self._open.pop()
            if not self._open:
                self._complete.append(element)

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text

    def _refuse(self, name: str, *_: object) -> None:
        raise AnnotationError(
            f"{self._path}:{self.parser.CurrentLineNumber}: found a document type ({name}), "
            "expected none: its entities could expand without end or read other files"
        )
