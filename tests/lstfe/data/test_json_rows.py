from __future__ import annotations

import json
from pathlib import Path

import pytest

from lstfe.data import json_rows
from lstfe.data.faults import AnnotationError
from lstfe.data.json_rows import read_rows

LISTS = frozenset({"a", "b"})


def _file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_empty_lists_have_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(_file(tmp_path, '{"a": [], "b":[ ]}'), LISTS)) == []


def test_rows_come_with_their_list_and_line(tmp_path: Path) -> None:
    path = _file(
        tmp_path, '\ufeff{"x": {"y": [1]}, "b": [\n{"n": 1},\n\n {"n": [\n2]}],\n"a": [3], "z": 1.5}\n'
    )
    rows = [(row.section, row.line, row.content) for row in read_rows(path, LISTS)]
    assert rows == [("b", 2, {"n": 1}), ("b", 4, {"n": [2]}), ("a", 6, 3)]


def test_what_is_asked_for_whole_comes_as_one_row_where_it_is_there(tmp_path: Path) -> None:
    path = _file(tmp_path, '{"a": [1],\n"x": [{"y": 2}], "b": [3]}')
    rows = [
        (row.section, row.line, row.content) for row in read_rows(path, LISTS, whole=frozenset({"x", "z"}))
    ]
    assert rows == [("a", 1, 1), ("x", 2, [{"y": 2}]), ("b", 2, 3)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_rows_do_not_depend_on_where_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK_BYTES", chunk)
    content = {
        "a": [{"n": number, "s": 'ü\n"\\ü'} for number in (12, -3.25e2)],
        "skip": 1234,
        "b": [1234, 56, "}"],
    }
    for indent in (None, 1):
        path = _file(tmp_path, json.dumps(content, indent=indent, ensure_ascii=False))
        rows = list(read_rows(path, LISTS))
        assert [row.content for row in rows] == content["a"] + content["b"]
        assert [row.line for row in rows][-1] == (1 if indent is None else path.read_text().count("\n") - 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"x\.json:1: found 'the end of the file', expected a JSON object with videos"),
        ("[]", r"x\.json:1: found '\[', expected a JSON object"),
        ('{"a": []}', r"x\.json:1: found no b, expected a COCO-VID file with these lists"),
        ('{"a": {}}', r"x\.json:1: found '{', expected a list of a"),
        ('{"a": [], "a": []}', r"x\.json:1: found 'a', expected a key that has not come yet"),
        (
            '{"a": [\n{"n": 1},\n{"n": }]}',
            r"x\.json:3: not readable as JSON \(Expecting value\), expected one of a",
        ),
        ('{"a": [\n{"n":\n\n NaN}]}', r"x\.json:2: not readable as JSON \(NaN is no JSON number\)"),
        ('{"a": [1 2]}', r"x\.json:1: found '2', expected ',' or '\]'"),
        ('{"a": [\n{"n": "', r"x\.json:2: not readable as JSON \(Unterminated string"),
        ('{"a" 1}', r"x\.json:1: found '1', expected ':' after 'a'"),
        ("{1: 2}", r"x\.json:1: found 1, expected a key"),
        ('{"a": [], "b": []}\n}', r"x\.json:2: found '}', expected the end of the file"),
        (b'{"a": [\n"\xff"]}', r"x\.json:2: not readable .*, expected UTF-8"),
        (b'{"a": [\n"\xc3', r"x\.json:2: not readable .*, expected UTF-8"),
        ('{"a": ' + "[" * 100_000, r"x\.json:1: not readable as JSON \(nested too deeply\)"),
        ('{"a": [' + "9" * 10_000 + "]}", r"x\.json:1: not readable as JSON \(Exceeds the limit"),
    ],
)
def test_what_is_no_such_json_is_named_by_file_and_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(AnnotationError, match=message) as caught:
        list(read_rows(_file(tmp_path, content), LISTS))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"x\.json: not readable \(No such file or directory\)"):
        list(read_rows(tmp_path / "x.json", LISTS))
