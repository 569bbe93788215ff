from __future__ import annotations

from lstfe.data.faults import fault


def test_a_fault_is_one_readable_line() -> None:
    message = str(fault("a.txt:1", "x\n" * 1000, "a number"))
    assert message.startswith("a.txt:1: found 'x\\nx")
    assert message.endswith("..., expected a number")
    assert len(message) < 130
