"""A git work tree of its own for a retraining, below .work/retrain: nobody's files but its own change.

It shares DVC's cache with the main tree, so that what is in the cache need not be made again. A killed retraining
leaves its tree; the next one of the same inputs goes on in it, one of other inputs removes it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from lstfe.errors import UserError
from pipelines.checkout import has_git
from pipelines.environment import child_environment
from pipelines.paths import PARAMS
from pipelines.stage import Report, run_group

RETRAIN = Path(".work/retrain")
MARK = "LSTFE_RETRAINING"
"""Environment variable of every process of a retraining: the main tree. It tells orphans from a user's own shell."""
_GRACE_SECONDS = 20.0
_WHOLE = ".whole"
"""In the tree's folder once everything is in place; without it a kill came first."""


def tree_path(root: Path, name: str) -> Path:
    """Return where the tree of that name lies."""
    return root / RETRAIN / name


def open_tree(root: Path, name: str, report: Report) -> Path:
    """Make the tree at the current commit on the branch `retrain/NAME`, or go on in the one that is there."""
    tree = tree_path(root, name)
    if (tree / ".dvc" / "tmp" / _WHOLE).is_file():
        report(f"going on in {tree}")
        return tree
    close_tree(root, name)
    _git(root, "worktree", "add", "--quiet", "-B", f"retrain/{name}", str(tree), "HEAD")
    local = root / ".dvc" / "config.local"
    if local.is_file():  # remotes and their keys
        shutil.copy(local, tree / ".dvc" / "config.local")
    run_dvc(tree, "cache", "dir", "--local", str(cache_dir(root)), report=report)
    with contextlib.suppress(FileNotFoundError):  # not in git before the first commit of results
        if not (tree / "dvc.lock").is_file():
            shutil.copy(root / "dvc.lock", tree / "dvc.lock")
    (tree / ".dvc" / "tmp").mkdir(exist_ok=True)
    (tree / ".dvc" / "tmp" / _WHOLE).touch()
    return tree


def close_tree(root: Path, name: str) -> None:
    """Remove a tree and, unless something was committed on it, its branch; git forgets it too."""
    tree = tree_path(root, name)
    if tree.is_dir():
        with contextlib.suppress(UserError):
            _git(root, "worktree", "remove", "--force", "--force", str(tree))
        shutil.rmtree(tree, ignore_errors=True)
    _git(root, "worktree", "prune")
    branch = f"retrain/{name}"
    found = _git(root, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}").strip()
    if found and _git(root, "rev-list", "--count", f"HEAD..{branch}").strip() == "0":
        _git(root, "branch", "--quiet", "-D", branch)


def other_trees(root: Path, name: str | None) -> list[str]:
    """Return the names of trees that earlier retrainings left, that of `name` not among them."""
    folder = root / RETRAIN
    found = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [other for other in found if other != name]


def commit_tree(tree: Path, message: str) -> str:
    """Commit what git keeps of a tree (parameters, dvc.lock, the .dvc files) and return the commit."""
    _git(tree, "add", "--all")
    if _git(tree, "status", "--porcelain"):
        _git(
            tree, *_identity(tree), "commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", message
        )
    return _git(tree, "rev-parse", "HEAD").strip()


def require_git(root: Path) -> None:
    """Raise UserError unless there is a commit to start from."""
    if not has_git(root):
        raise UserError(
            f"{root}: no .git here, and a retraining works on a branch of its own; clone the project"
        )
    if _git(root, "rev-parse", "--verify", "--quiet", "HEAD", is_asked=True) == "":
        raise UserError(f"{root}: git has no commit here to start from; commit the project first")


def head(root: Path) -> str:
    """Return the commit that a retraining starts from."""
    return _git(root, "rev-parse", "HEAD").strip()


def set_params(tree: Path, values: Mapping[str, Any]) -> None:
    """Set parameters by their dotted names in the tree's params.yaml, comments kept; UserError for unknown ones."""
    yaml, path = YAML(), tree / PARAMS
    params = yaml.load(path)
    for name, value in values.items():
        *sections, key = name.split(".")
        section = params
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or key not in section:
            raise UserError(f"{path}: no parameter {name}, expected one of params.yaml (retrain.overrides)")
        section[key] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def run_dvc(tree: Path, *arguments: str, report: Report) -> None:
    """Run a DVC command in a tree; UserError with its last words where it fails."""
    lines: list[str] = []
    command = [sys.executable, "-m", "dvc", *arguments]
    exit_code = run_group(command, cwd=tree, env=child_environment(tree), report=lines.append)
    if exit_code != 0:
        words = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise UserError(f"{tree}: `dvc {' '.join(arguments)}` failed: {' '.join(words)[:500]}")
    for line in lines:
        if line.strip():
            report(line)


def cache_dir(root: Path) -> Path:
    """Return where the main tree's DVC keeps contents."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Path(repo.cache.local_cache_dir)


def end_orphans(root: Path, report: Report) -> None:
    """End processes that a killed retraining left at work in its tree; a training among them saves first.

    Only the holder of the lock may call it: then nobody else has a right to be there.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        orphans = [process for process in psutil.process_iter() if _is_marked(process, str(root.resolve()))]
        if not orphans:
            return
        for process in orphans:
            report(f"process {process.pid} of an earlier retraining is still at work: {number.name}")
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        psutil.wait_procs(orphans, timeout=_GRACE_SECONDS)


def _is_marked(process: psutil.Process, root: str) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == root)
    except (psutil.Error, OSError):  # of another user, or just gone
        return False


def _identity(tree: Path) -> Sequence[str]:
    """Return options that name an author where the user has not."""
    if _git(tree, "config", "user.email", is_asked=True).strip():
        return ()
    return ("-c", "user.name=lstfe", "-c", "user.email=lstfe@localhost")


def committed(root: Path, path: Path) -> str:
    """Return a file as the current commit has it; UserError where it has none."""
    return _git(root, "show", f"HEAD:./{path.as_posix()}")


def _git(folder: Path, *arguments: str, is_asked: bool = False) -> str:
    """Run git and return its output; UserError where it fails, but "" for what `is_asked` only."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not is_asked:
        raise UserError(f"{folder}: `git {arguments[0]}` failed: {' '.join(done.stderr.split())[:500]}")
    return done.stdout if done.returncode == 0 else ""
