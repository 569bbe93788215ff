"""What kind of copy this is: a git checkout, or a downloaded archive that DVC must be told about."""

from __future__ import annotations

import configparser
from pathlib import Path

NO_GIT_NOTE = "note: no .git folder here, so `dvc exp` (comparing experiments) does not work; all else does"


def has_git(root: Path) -> bool:
    """Return whether `root` lies in a git work tree (a linked work tree has a .git file)."""
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def settle_git(root: Path) -> str | None:
    """Tell DVC, in its untracked local settings, whether there is git; return what the user should know."""
    path = root / ".dvc" / "config.local"
    settings = configparser.RawConfigParser()
    settings.read(path, encoding="utf-8")
    without_git = not has_git(root)
    if settings.getboolean("core", "no_scm", fallback=False) != without_git:
        if not settings.has_section("core"):
            settings.add_section("core")
        settings.set("core", "no_scm", str(without_git).lower())
        with path.open("w", encoding="utf-8") as file:
            settings.write(file)
    return NO_GIT_NOTE if without_git else None
