from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.data.faults import AnnotationError
from lstfe.data.importers.grammar import check_frame, parse_integer, parse_number, read_lines


def test_an_empty_text_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert list(read_lines(tmp_path / "a.txt")) == []


def test_lines_keep_their_numbers_without_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n \n two\n")
    assert list(read_lines(tmp_path / "a.txt")) == [(1, "one"), (4, "two")]


def test_what_is_no_text_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xff\n")
    with pytest.raises(AnnotationError, match=r"a\.txt:3: not readable as text .*, expected UTF-8"):
        list(read_lines(tmp_path / "a.txt"))
    with pytest.raises(AnnotationError, match=r"b\.txt: not readable \(No such file or directory\)"):
        list(read_lines(tmp_path / "b.txt"))


@pytest.mark.parametrize("text", ["", "x", "1.0", "1e3", "1_0", " 1", "\u0661", "-1", "11", "9" * 5000])
def test_only_plain_integers_within_their_limits_are_integers(text: str) -> None:
    with pytest.raises(AnnotationError, match=r"^here: found .* expected frame, an integer from 0 to 10$"):
        parse_integer(text, "here", "frame", low=0, high=10)


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1e999", "-1e9", "1_0", "0x1", "--1", "."])
def test_only_plain_decimals_within_their_limits_are_numbers(text: str) -> None:
    with pytest.raises(AnnotationError, match=r"^here: found .* expected x, a number from"):
        parse_number(text, "here", "x")


def test_numbers_are_read_as_they_are_written() -> None:
    assert [parse_number(text, "", "") for text in ("-3", "+2.50", ".5", "1e2", "7.")] == [
        -3,
        2.5,
        0.5,
        100,
        7,
    ]
    assert isinstance(parse_number("12", "", ""), int)
    assert parse_integer("+10", "", "", low=0, high=10) == 10


def test_frames_past_the_end_of_a_video_are_refused() -> None:
    assert check_frame(9, 10, "here", "v") == 9
    with pytest.raises(
        AnnotationError, match="here: frame 10 is past the end of v, expected less than its 10"
    ):
        check_frame(10, 10, "here", "v")
