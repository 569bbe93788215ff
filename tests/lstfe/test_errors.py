from __future__ import annotations

from lstfe.errors import one_line


def test_what_a_library_says_over_several_lines_becomes_one() -> None:
    assert one_line(OSError("  cannot\n\n  open\tit ")) == "cannot open it"


def test_an_error_without_words_has_its_kind() -> None:
    assert one_line(EOFError()) == "EOFError"
