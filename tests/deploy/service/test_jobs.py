from __future__ import annotations

import pytest

from deploy.service.jobs import label_of


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("", "video"),
        ("clip.mp4", "clip"),
        ("a.b.mp4", "a.b"),
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\clip.mp4", "clip"),
        ("..", "video"),
        ("<script>.mp4", "_script_"),
        ("a\nb\x00c.mp4", "a_b_c"),
        ("Möwe 1.mkv", "Möwe 1"),
        ("x" * 300, "x" * 100),
    ],
)
def test_a_label_holds_nothing_but_a_name(given: str, label: str) -> None:
    assert label_of(given, []) == label


def test_labels_of_one_job_differ() -> None:
    labels: list[str] = []
    for _ in range(3):
        labels.append(label_of("clip.mp4", labels))
    assert labels == ["clip", "clip-2", "clip-3"]
