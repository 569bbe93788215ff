"""What makes a training the same training: its parameters, data and code; and where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lstfe.config import Config
from pipelines.paths import LOCK, PIPELINE, PREPARED

# Without data.max_bad_fraction: a training that stopped at unreadable clips goes on once the limit is raised.
_SECTIONS = ("model", "sampling", "inference", "train")
_NO_PART = ("num_workers", "keep_checkpoints", "max_skipped_updates")
"""Keys of `train` that change no weight."""
_OF_FIGURES = ("protocols", "frame_stride")
"""Keys of `evaluate` that validation scores by."""
_SCORING = (Path("lstfe/evaluation"), Path("lstfe/stream.py"))
"""Code that validation runs, and that dvc.yaml leaves out of the dependencies of `train`."""


def train_key(config: Config, *, data_md5: str, code_md5: str) -> str:
    """Name the training that parameters, data and code define; the number of processes is no part of it.

    Where a figure of the validation chooses the weights (`train.release`), what makes that figure is a part.
    """
    sections = {name: dataclasses.asdict(getattr(config, name)) for name in _SECTIONS}
    for key in _NO_PART:
        del sections["train"][key]
    start = config.train.warm_start
    start_md5 = files_md5([Path(start)]) if start else None
    parts: list[Any] = [sections, data_md5, code_md5, start_md5]
    if config.train.release != "last":
        figures = {name: getattr(config.evaluate, name) for name in _OF_FIGURES}
        parts.append([figures, files_md5(list(_SCORING))])
    identity = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def detection_key(config: Config, *, device: str, weights_md5: str, data_md5: str, code_md5: str) -> str:
    """Name the detections that weights, settings, data and code define; how they are scored is no part of it."""
    sections = {name: dataclasses.asdict(getattr(config, name)) for name in ("model", "inference")}
    settings = [sections, config.evaluate.split, config.evaluate.num_threads, device]
    identity = json.dumps([settings, weights_md5, data_md5, code_md5], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def prepared_md5(name: str) -> str:
    """Return the hash of the prepared data set: DVC's where dvc.lock has it, else one over its files."""
    directory = PREPARED / name
    for out in _read(LOCK).get("stages", {}).get("prepare", {}).get("outs", []):
        if out["path"] == directory.as_posix():
            return str(out["md5"])
    return files_md5([directory])


def code_md5(stage: str) -> str:
    """Return a hash over the code that dvc.yaml lists as dependencies of `stage`."""
    deps = _read(PIPELINE)["stages"][stage]["deps"]
    return files_md5([Path(dep) for dep in deps if not dep.startswith(("data/", "artifacts/"))])


def files_md5(paths: list[Path]) -> str:
    """Return a hash over the names and contents of files and of all files in folders, bytecode left out."""
    files = sorted(file for path in paths for file in _files_of(path))
    digest = hashlib.md5(usedforsecurity=False)
    for file in files:
        digest.update(f"{file.as_posix()}\n{file_md5(file)}\n".encode())
    return digest.hexdigest()


def lock_md5() -> str | None:
    """Return the hash of dvc.lock, which names every input and output of the whole chain; None without it."""
    return file_md5(LOCK) if LOCK.is_file() else None


def current_commit() -> str | None:
    """Return the git commit of the current folder; None without git or without any commit."""
    return _git("rev-parse", "HEAD")


def origin_tags() -> dict[str, str]:
    """Return a run's origin: git commit, DVC experiment, Prefect flow run; what is unknown left out."""
    commit = current_commit()
    status = _git("status", "--porcelain") if commit else None
    tags = {
        "git.commit": commit,
        "git.dirty": None if status is None else str(bool(status)).lower(),
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "dvc.lock.md5": lock_md5(),
        "prefect.flow_run_id": os.environ.get("LSTFE_FLOW_RUN_ID"),
    }
    return {name: value for name, value in tags.items() if value}


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {})


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        return [file for file in inside if file.suffix != ".pyc"]
    return [path] if path.is_file() else []


def file_md5(path: Path) -> str:
    """Return the MD5 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
