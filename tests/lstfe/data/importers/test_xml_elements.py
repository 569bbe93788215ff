from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.data.faults import AnnotationError
from lstfe.data.importers.xml_elements import read_elements, read_root


def _file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "a.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_root_without_wanted_elements_yields_none(tmp_path: Path) -> None:
    assert list(read_elements(_file(tmp_path, "<a><c/></a>"), "a", "b")) == []


def test_elements_come_with_their_lines_text_and_children(tmp_path: Path) -> None:
    path = _file(tmp_path, '<a>\n<b id="1">x\n<c> 5 </c>y</b>\n<d><b/></d></a>')
    first, second = read_elements(path, "a", "b")
    assert (first.line, first.attributes, first.text) == (2, {"id": "1"}, "x\ny")
    assert (first.child("c").line, first.child("c").integer(low=0, high=9)) == (3, 5)
    assert (second.line, second.children) == (4, [])


def test_an_element_within_a_wanted_one_belongs_to_it(tmp_path: Path) -> None:
    [outer] = read_elements(_file(tmp_path, "<a><b><b/></b></a>"), "a", "b")
    assert [child.tag for child in outer.children] == ["b"]


def test_an_element_is_there_before_the_rest_of_the_file_is_read(tmp_path: Path) -> None:
    rows = "<b/>" * 100_000
    elements = read_elements(_file(tmp_path, f"<a>{rows}<broken</a>"), "a", "b")
    assert next(elements).tag == "b"
    with pytest.raises(AnnotationError, match="not well-formed"):
        list(elements)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        "<!DOCTYPE a>",
    ],
)
def test_document_types_are_refused_whatever_they_hold(tmp_path: Path, doctype: str) -> None:
    path = _file(tmp_path, f"<?xml version='1.0'?>\n{doctype}\n<a>&x;</a>")
    with pytest.raises(AnnotationError, match=r"a\.xml:2: found a document type \(a\), expected none"):
        read_root(path, "a")


def test_entities_that_nothing_declares_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"a\.xml:2: not well-formed \(undefined entity\)"):
        read_root(_file(tmp_path, "<a>\n&x;</a>"), "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.xml:1: not well-formed \(no element found\), expected XML"),
        (b"<a>", r"a\.xml:1: not well-formed"),
        (b"<a/>\n<a/>", r"a\.xml:2: not well-formed \(junk after document element\)"),
        (b"<b/>", r"a\.xml:1: found '<b>', expected <a> as the outermost element"),
        (b"<a>\n\xff</a>", r"a\.xml:2: not well-formed"),
        (b'<?xml version="1.0" encoding="nonsense"?><a/>', r"a\.xml:1: not .*expected"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', r"a\.xml:1: not .*expected"),
    ],
)
def test_what_is_no_such_xml_is_named_by_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_root(_file(tmp_path, content), "a")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"a\.xml: not readable \(No such file or directory\)"):
        read_root(tmp_path / "a.xml", "a")


def test_children_and_attributes_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    root = read_root(_file(tmp_path, "<a>\n<b/>\n<b/></a>"), "a")
    with pytest.raises(AnnotationError, match=r"a\.xml:1: found no <c> in <a>, expected one"):
        root.child("c")
    with pytest.raises(AnnotationError, match=r"a\.xml:3: found a second <b> in <a>, expected one"):
        root.find("b")
    with pytest.raises(AnnotationError, match=r"a\.xml:1: found no 'id' on <a>, expected id="):
        root.attribute("id")


def test_a_size_of_zero_is_unknown(tmp_path: Path) -> None:
    sizes = {"<height>4</height><width>6</width>": (4, 6), "<height>0</height><width>6</width>": (0, 0)}
    for content, size in sizes.items():
        assert read_root(_file(tmp_path, f"<a>{content}</a>"), "a").size() == size
