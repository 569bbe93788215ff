"""Who serves: bundles by version, the champion's pointer, promotion, rollback and their history.

    .work/serving/champion.json          the pointer: what the service follows, and the truth about who is champion
    .work/serving/bundles/<version>/     bundles, never changed; a version is that of MLflow's registered model
    .work/serving/references/<version>.json   what the champion knew: drift is measured against it (pipelines/drift.py)
    .work/serving/history.jsonl          one line a change

A promotion goes bundle -> version -> aliases -> pointer -> history, so that whatever a kill leaves behind, the pointer
names a whole bundle; `repair` then brings history and MLflow's aliases up to the pointer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lstfe.errors import UserError
from lstfe.whole_files import new_file
from pipelines.lock import hold_lock
from pipelines.model_versions import ALIASES, CHALLENGER, CHAMPION, PREVIOUS, ModelVersions
from pipelines.operations_config import load_operations
from pipelines.paths import PARAMS, SERVING, champion_pointer, find_project
from pipelines.tracked_model import BUNDLE_VERSION

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 60.0


class RegistryError(UserError):
    """A promotion or rollback that cannot be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Champion:
    """What champion.json says."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    version: str
    """Of the registered model in MLflow."""
    bundle: str
    """Absolute path of a bundle that is never changed."""
    run_id: str
    """MLflow run of its training."""
    promoted_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One line of the history."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    time: str
    """ISO 8601, UTC."""
    action: Literal["promote", "rollback", "refuse", "repair"]
    version: str
    """Champion after it; for `refuse`, the challenger that stayed outside."""
    previous: str | None = None
    """Champion before it."""
    reason: str = ""


def bundle_path(root: Path, version: str) -> Path:
    """Return where the bundle of a version lies."""
    return _bundles_dir(root) / version


def _bundles_dir(root: Path) -> Path:
    return root / SERVING / "bundles"


def reference_path(root: Path, version: str) -> Path:
    """Return where the distributions lie that a version was trained and tested on."""
    return root / SERVING / "references" / f"{version}.json"


def read_champion(root: Path) -> Champion | None:
    """Return who serves, None before the first promotion; RegistryError where the pointer cannot be read."""
    path = champion_pointer(root)
    try:
        return TypeAdapter(Champion).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise RegistryError(
            f"{path}: not a champion's pointer ({type(error).__name__}), expected version, bundle, run_id and "
            "promoted_at; remove it and promote a version again"
        ) from None


def history(root: Path | None = None) -> list[Change]:
    """Return every promotion, rollback and refusal, oldest first; a line cut off by a kill is left out."""
    path = (root or find_project()) / SERVING / "history.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    changes = []
    for line in lines:
        with contextlib.suppress(ValidationError):
            changes.append(TypeAdapter(Change).validate_json(line))
    return changes


def champions(changes: list[Change]) -> list[str]:
    """Return the champions that a rollback can go back through, the present one last, from their history."""
    stack: list[str] = []
    for change in changes:
        if change.action == "refuse":
            continue
        if change.version in stack:  # a rollback, or an old version promoted again
            if change.action == "promote":
                stack = [version for version in stack if version != change.version] + [change.version]
            else:
                del stack[stack.index(change.version) + 1 :]
        else:
            stack.append(change.version)
    return stack


def enrol(root: Path, bundle: Path, *, run_id: str, tags: Mapping[str, str]) -> str:
    """Keep a verified copy of a bundle as a new version with the alias `challenger`, and return the version.

    The same bundle of the same run again gives the same version. Raises BundleError for a damaged bundle.
    """
    from deploy.bundle import open_bundle

    manifest = open_bundle(bundle).manifest
    tags = {**tags, BUNDLE_VERSION: manifest.model_version}
    versions = ModelVersions(root)
    with _locked(root):
        folder = _bundles_dir(root)
        staged = folder / f".{manifest.model_version}-{os.getpid()}.partial"
        _remove_leftovers(folder)
        shutil.copytree(bundle, staged)
        try:
            open_bundle(staged)
            _flush(staged)
            version = versions.enrol(run_id, tags)
            _place(staged, bundle_path(root, version))
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        versions.set_aliases({CHALLENGER: version})
    return version


def promote(version: str, root: Path | None = None, *, reason: str = "") -> Champion:
    """Make a version champion and return the new pointer; RegistryError where its bundle is nowhere to be had."""
    root = root or find_project()
    versions = ModelVersions(root)
    with _locked(root):
        _repair(root)
        before = read_champion(root)
        known = {item.version: item for item in versions.all()}
        if version not in known:
            raise RegistryError(
                f"version {version!r}: MLflow's registered model has no such version, expected one of "
                f"{', '.join(known) or 'none: nothing has been trained by `lstfe ops retrain` yet'}"
            )
        if before is not None and before.version == version:
            return before
        bundle = _require_bundle(root, version, versions, expected=known[version].tags.get(BUNDLE_VERSION))
        stack = [name for name in champions(history(root)) if name != version]
        challenger = versions.aliases().get(CHALLENGER)
        versions.set_aliases(
            _aliases([*stack, version], challenger=None if challenger == version else challenger)
        )
        champion = _point(root, version, bundle, known[version].run_id)
        _note(root, "promote", version, before.version if before else None, reason)
        versions.tag(version, {"promoted_at": champion.promoted_at})
        _prune(root)
    return champion


def rollback(root: Path | None = None, *, reason: str = "") -> Champion:
    """Make the champion before the present one champion again, also while MLflow is down; return the new pointer."""
    root = root or find_project()
    with _locked(root):
        _repair(root)
        present = read_champion(root)
        stack = champions(history(root))
        if present is None or len(stack) < 2:
            raise RegistryError(
                f"{champion_pointer(root)}: no champion before "
                f"{'version ' + present.version if present else 'this one'} to go back to; see `lstfe ops history`"
            )
        version = stack[-2]
        versions = ModelVersions(root)
        bundle = _require_bundle(root, version, versions)
        run_id = _run_of(bundle)
        champion = _point(root, version, bundle, run_id)
        _note(root, "rollback", version, present.version, reason)
        _set_aliases_at_best(versions, stack[:-1])
    return champion


def refuse(root: Path, version: str, *, reason: str) -> None:
    """Note that the gate kept a challenger outside."""
    champion = read_champion(root)
    with _locked(root):
        if not any(c.action == "refuse" and c.version == version for c in history(root)):
            _note(root, "refuse", version, champion.version if champion else None, reason)


def repair(root: Path) -> list[str]:
    """Bring history and MLflow's aliases up to the pointer, after a kill between them; return what was mended."""
    with _locked(root):
        return _repair(root)


def _repair(root: Path) -> list[str]:
    champion = read_champion(root)
    _remove_leftovers(_bundles_dir(root))
    if champion is None:
        return []
    mended = []
    here = bundle_path(root, champion.version)
    if not Path(
        champion.bundle
    ).is_dir():  # the project's folder has another name by now, or the bundle was deleted
        bundle = _require_bundle(root, champion.version, ModelVersions(root))
        _point(root, champion.version, bundle, champion.run_id, promoted_at=champion.promoted_at)
        mended.append(f"pointer: the champion's bundle is {here}")
    stack = champions(history(root))
    if not stack or stack[-1] != champion.version:
        _note(root, "repair", champion.version, stack[-1] if stack else None, "the pointer was ahead of it")
        mended.append(f"history: version {champion.version} is champion")
        stack = champions(history(root))
    if _set_aliases_at_best(ModelVersions(root), stack):
        mended.append(f"MLflow's alias champion: version {champion.version}")
    return mended


def _aliases(stack: list[str], *, challenger: str | None) -> dict[str, str | None]:
    return {
        PREVIOUS: stack[-2] if len(stack) > 1 else None,
        CHAMPION: stack[-1],
        CHALLENGER: challenger,
    }


def _set_aliases_at_best(versions: ModelVersions, stack: list[str]) -> bool:
    """Point champion and previous at where the pointer says; return whether that changed anything."""
    try:
        present = versions.aliases()
        wanted = _aliases(stack, challenger=present.get(CHALLENGER))
        if wanted == {alias: present.get(alias) for alias in ALIASES}:
            return False
        versions.set_aliases(wanted)
    except UserError as error:
        logger.warning("the aliases will be set when MLflow is back: %s", error)
        return False
    return True


def _require_bundle(
    root: Path, version: str, versions: ModelVersions, *, expected: str | None = None
) -> Path:
    """Return a version's bundle, verified; one that was cleared away comes back from MLflow.

    `expected` is the version in the bundle's manifest; MLflow is asked for it only when it must be there anyway.
    """
    path = bundle_path(root, version)
    if not path.is_dir():
        staged = path.with_name(f".{version}-{os.getpid()}.partial")
        try:
            staged.mkdir(parents=True)
            expected = expected or versions.bundle_version(version)
            found = versions.download_bundle(version, staged)
            _require_version(found, version, expected)
            _place(found, path)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    _require_version(path, version, expected)
    return path


def _require_version(bundle: Path, version: str, expected: str | None) -> None:
    """Raise RegistryError for another bundle than the one that was enrolled, BundleError for a damaged one."""
    from deploy.bundle import open_bundle

    found = open_bundle(bundle).manifest.model_version
    if expected is not None and found != expected:
        raise RegistryError(
            f"version {version}: its bundle is {found}, expected {expected}; a later deployment of the same MLflow run "
            "has taken its place, promote another version"
        )


def _run_of(bundle: Path) -> str:
    from deploy.bundle import open_bundle

    return open_bundle(bundle).manifest.run_id or ""


def _point(
    root: Path, version: str, bundle: Path, run_id: str, *, promoted_at: str | None = None
) -> Champion:
    """Let the pointer name a bundle; from here on the service serves it."""
    champion = Champion(
        version=version, bundle=str(bundle.resolve()), run_id=run_id, promoted_at=promoted_at or _now()
    )
    with new_file(champion_pointer(root), is_durable=True) as partial:
        partial.write_text(json.dumps(asdict(champion), indent=2) + "\n", encoding="utf-8")
    return champion


def _note(
    root: Path,
    action: Literal["promote", "rollback", "refuse", "repair"],
    version: str,
    previous: str | None,
    reason: str,
) -> None:
    change = Change(time=_now(), action=action, version=version, previous=previous, reason=reason)
    path = root / SERVING / "history.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    is_cut_off = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if is_cut_off else "") + json.dumps(asdict(change)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _place(staged: Path, destination: Path) -> None:
    """Give a whole bundle its name; one that has it already is the same, since versions are never changed."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if not destination.is_dir():
        staged.rename(destination)


def _flush(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Remove what copies cut off by a kill left; only the holder of the lock makes any."""
    for path in folder.glob(".*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _prune(root: Path) -> None:
    """Remove all but the newest bundles and those that a rollback may need at once."""
    keep = load_operations(root / PARAMS).retrain.keep_bundles if (root / PARAMS).is_file() else 5
    folder = _bundles_dir(root)
    present = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda p: -int(p.name))
    needed = {*champions(history(root))[-2:], *(path.name for path in present[:keep])}
    for path in present:
        if path.name not in needed:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    with hold_lock(root / SERVING / "lock", what="a promotion or rollback", wait_seconds=_LOCK_SECONDS):
        yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
