from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.data.faults import AnnotationError
from lstfe.data.splits import divide_frames, plan_splits

NAMES = ["e", "a", "d", "b", "c"]


def test_no_videos_are_in_no_split() -> None:
    assert plan_splits("half", []) == plan_splits("none", []) == {}


def test_half_and_none_treat_all_videos_alike() -> None:
    assert plan_splits("half", NAMES) == dict.fromkeys(NAMES, ("train", "test"))
    assert plan_splits("none", NAMES) == dict.fromkeys(NAMES, ("all",))


def test_auto_is_what_the_source_says_or_else_half(tmp_path: Path) -> None:
    own = {"a": ("val",)}
    assert plan_splits("auto", NAMES, own=own) == own
    assert plan_splits("auto", NAMES, lists=tmp_path) == plan_splits("half", NAMES)
    (tmp_path / "val.txt").write_text("b\n")
    assert plan_splits("auto", NAMES, lists=tmp_path) == {"b": ("val",)}
    assert plan_splits("none", NAMES, own=own, lists=tmp_path) == plan_splits("none", NAMES)


def test_every_video_is_tested_in_exactly_one_fold() -> None:
    plans = [plan_splits(f"folds:3:{fold}", NAMES) for fold in (1, 2, 3)]
    tested = [[name for name, parts in plan.items() if parts == ("test",)] for plan in plans]
    assert [sorted(fold) for fold in tested] == [["a"], ["b", "c"], ["d", "e"]]
    assert all(set(plan.values()) == {("train",), ("test",)} for plan in plans)
    assert plan_splits("folds:3", NAMES) == plans[0]


def test_a_fold_holds_neighbours_in_name() -> None:
    names = [f"v{n:02d}" for n in range(10)]
    plan = plan_splits("folds:2:2", names)
    assert [name for name in names if plan[name] == ("test",)] == names[5:]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("thirds", "split 'thirds' is unknown, expected auto, half"),
        ("folds:x", "split 'folds:x' is unknown"),
        ("folds:1", "expected 2 to 5 folds for 5 videos"),
        ("folds:6", "expected 2 to 5 folds for 5 videos"),
        ("folds:3:4", "fold 4, expected 1 to 3"),
        ("folds:3:0", "fold 0, expected 1 to 3"),
    ],
)
def test_splits_that_make_no_sense_are_refused(split: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        plan_splits(split, NAMES)


def test_lists_choose_videos_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\ufeffd\n\n a \r\n")
    (tmp_path / "test.txt").write_text("b")
    plan = plan_splits(f"by-list:{tmp_path}", NAMES)
    assert list(plan.items()) == [("d", ("train",)), ("a", ("train",)), ("b", ("test",))]


def test_lists_that_cannot_be_followed_are_named_by_line(tmp_path: Path) -> None:
    split = f"by-list:{tmp_path}"
    with pytest.raises(AnnotationError, match="lists no video, expected names in train"):
        plan_splits(split, NAMES)
    (tmp_path / "train.txt").write_text("a\nx\n")
    with pytest.raises(
        AnnotationError, match=r"train\.txt:2: no video x in the source, expected one of its 5"
    ):
        plan_splits(split, NAMES)
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "val.txt").write_text("b\na\n")
    with pytest.raises(AnnotationError, match=r"val\.txt:2: video a is listed already in train\.txt"):
        plan_splits(split, NAMES)
    (tmp_path / "val.txt").write_bytes(b"\xff")
    with pytest.raises(AnnotationError, match=r"val\.txt: not readable as text"):
        plan_splits(split, NAMES)


def test_frames_are_divided_in_order_of_time() -> None:
    assert divide_frames(("all",), range(3)) == {"all": range(3)}
    assert divide_frames(("train", "test"), range(5)) == {"train": range(2), "test": range(2, 5)}
    assert divide_frames(("train", "test"), [7, 9]) == {"train": [7], "test": [9]}
    assert divide_frames(("train", "test"), [7]) == {"test": [7]}
    assert divide_frames(("train", "test"), []) == {}
