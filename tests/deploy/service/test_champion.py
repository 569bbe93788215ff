from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy.bundle import MANIFEST_FILE
from deploy.service.champion import Champion, NotReadyError
from lstfe.errors import UserError


@pytest.fixture
def outcomes() -> list[str]:
    """What `on_load` was told."""
    return []


@pytest.fixture
def follow(outcomes: list[str]) -> Callable[..., Champion]:
    """Return a maker of champions that look at their pointer only when they are told to."""

    def make(
        pointer: Path | None = None, bundle: Path | None = None, reload_after_s: float = 1000.0
    ) -> Champion:
        return Champion(
            bundle=bundle,
            pointer=pointer,
            backend="onnx",
            poll_s=1000.0,
            reload_after_s=reload_after_s,
            on_load=outcomes.append,
        )

    return make


def test_without_a_promotion_there_is_nothing_to_serve(
    follow: Callable[..., Champion], tmp_path: Path
) -> None:
    champion = follow(tmp_path / "champion.json")
    champion.refresh()
    with pytest.raises(NotReadyError, match="no champion yet; promote a model, or give --bundle DIR"):
        champion.acquire()
    assert champion.name is None
    assert champion.versions_in_use == []


def test_before_anything_is_loaded_one_is_asked_to_wait(
    follow: Callable[..., Champion], bundle_dir: Path
) -> None:
    with pytest.raises(NotReadyError, match="being loaded"):
        follow(bundle=bundle_dir).acquire()


def test_a_bundle_by_hand_has_its_own_version(
    follow: Callable[..., Champion], bundle_dir: Path, outcomes: list[str]
) -> None:
    champion = follow(bundle=bundle_dir)
    for _ in range(3):
        champion.refresh()
    model = champion.acquire()
    assert model.name.version == model.name.bundle
    assert outcomes == ["loaded"]
    frame = np.zeros((64, 96, 3), np.uint8)
    detector = model.detector(None)
    assert [found.frame_index for found in [*detector.push(frame), *detector.finish()]] == [0]
    with pytest.raises(UserError, match="either a bundle or"):
        follow()


def test_a_promotion_takes_over_for_new_work_and_old_work_goes_on(
    follow: Callable[..., Champion], promote: Callable[..., Path], outcomes: list[str]
) -> None:
    champion = follow(promote("3"))
    champion.refresh()
    old = champion.acquire()
    assert (old.name.version, old.name.run_id) == ("3", "run3")
    promote("4")
    champion.refresh()
    new = champion.acquire()
    assert new.name.version == "4"
    assert champion.versions_in_use == ["3", "4"]
    assert old.detector(None).finish() == []
    gone = weakref.ref(old)
    champion.release(old)
    assert champion.versions_in_use == ["4"]
    del old
    gc.collect()
    assert gone() is None, "its sessions are freed with it"
    assert outcomes == ["loaded", "loaded"]


def damaged(bundle: Path) -> Path:
    (bundle / "relation.onnx").write_bytes(b"not a graph")
    return bundle


def without_manifest(bundle: Path) -> Path:
    (bundle / MANIFEST_FILE).unlink()
    return bundle


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(damaged, "changed since the bundle was written"), (without_manifest, "no manifest.json in it")],
)
def test_a_broken_bundle_leaves_the_old_one_in_service(
    follow: Callable[..., Champion],
    promote: Callable[..., Path],
    bundle_dir: Path,
    tmp_path: Path,
    outcomes: list[str],
    spoil: Callable[[Path], Path],
    message: str,
) -> None:
    champion = follow(promote("3"))
    champion.refresh()
    broken = Path(shutil.copytree(bundle_dir, tmp_path / "broken"))
    promote("4", spoil(broken))
    for _ in range(3):
        champion.refresh()
    assert champion.name is not None
    assert champion.name.version == "3"
    assert message in str(champion.fault)
    assert outcomes == ["loaded", "failed"], "tried once, not at each look"
    promote("5")
    champion.refresh()
    assert champion.name.version == "5"
    assert champion.fault is None


def test_a_bundle_that_is_still_being_copied_is_tried_again(
    follow: Callable[..., Champion], promote: Callable[..., Path], bundle_dir: Path, tmp_path: Path
) -> None:
    champion = follow(promote("4", tmp_path / "late"), reload_after_s=0.001)
    champion.refresh()
    assert "no such directory" in str(champion.fault)
    shutil.copytree(bundle_dir, tmp_path / "late")
    champion.refresh()
    assert champion.name is not None
    assert champion.name.version == "4"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "3"}', '{"version": 3, "bundle": []}'])
def test_a_pointer_that_cannot_be_read_is_a_fault(
    follow: Callable[..., Champion], promote: Callable[..., Path], content: str
) -> None:
    pointer = promote("3")
    champion = follow(pointer)
    champion.refresh()
    pointer.write_text(content)
    champion.refresh()
    assert champion.fault is not None
    assert champion.name is not None
    pointer.unlink()
    champion.refresh()
    assert champion.name.version == "3", "a pointer that is gone ends nothing"


def test_a_pointer_that_cannot_be_opened_is_tried_once_and_again_when_it_can_be(
    follow: Callable[..., Champion], promote: Callable[..., Path], outcomes: list[str]
) -> None:
    pointer = promote("3")
    champion = follow(pointer)
    champion.refresh()
    aside = pointer.rename(pointer.with_name("aside"))
    pointer.mkdir()  # root may read everything else
    for _ in range(3):
        champion.refresh()
    assert f"{pointer}: cannot be read (Is a directory)" in str(champion.fault)
    assert outcomes == ["loaded", "failed"], "tried once, not at each look"
    pointer.rmdir()
    aside.rename(pointer)
    champion.refresh()
    assert champion.fault is None
