"""What is wrong with annotations, and the words for it."""

from __future__ import annotations

from lstfe.errors import UserError

_LONGEST_SHOWN = 80


class AnnotationError(UserError):
    """An annotation file says something that cannot be true."""


def fault(where: str, found: object, expected: str) -> AnnotationError:
    """Return the error `where: found X, expected Y`; what was found is cut to a readable length."""
    shown = repr(found)
    if len(shown) > _LONGEST_SHOWN:
        shown = shown[:_LONGEST_SHOWN] + "..."
    return AnnotationError(f"{where}: found {shown}, expected {expected}")
