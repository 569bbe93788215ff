"""Detections are scored against the categories that the detector was trained on, or not at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lstfe.config import Config
from lstfe.data.faults import AnnotationError
from lstfe.params import save_config
from pipelines import champion_scores, trained
from pipelines.champion_scores import BUNDLE
from pipelines.evaluate import evaluate
from pipelines.paths import PARAMS, PREPARED

WORDS = "test.json: the split lacks the detector's plane and has drone, unknown to the detector"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the data set `embedded`, whose only category is `drone`."""
    monkeypatch.chdir(tmp_path)
    PARAMS.write_text("{}")
    PREPARED.mkdir(parents=True)
    (PREPARED / Config().data.name).symlink_to(tiny_prepared)


def test_evaluate_refuses_a_split_of_other_categories() -> None:
    trained.TRAINED.mkdir(parents=True)
    save_config(Config(), trained.CONFIG)
    trained.write_json(trained.LABELS, ["plane"])
    with pytest.raises(AnnotationError, match=WORDS):
        evaluate()


def test_a_champion_is_not_scored_on_a_split_of_other_categories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUNDLE, "champion")
    monkeypatch.setattr(champion_scores, "open_bundle", lambda path: SimpleNamespace(label_names=("plane",)))
    with pytest.raises(AnnotationError, match=WORDS):
        champion_scores.champion_scores()
