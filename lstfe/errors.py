"""The one kind of error that is the user's to mend."""

from __future__ import annotations


class UserError(ValueError):
    """Something outside the program is wrong; the message says where, what was found, expected, and what to do.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


def one_line(error: Exception) -> str:
    """Return what an error of a library says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
