"""The sections of params.yaml that only flows read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lstfe.config import ConfigError
from lstfe.params import OPERATIONS, load_config
from pipelines.operations_config import OperationsConfig, load_operations

ROOT = Path(__file__).parents[2]


def _load(folder: Path, text: str) -> OperationsConfig:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return load_operations(path)


@pytest.mark.parametrize("text", ["{}\n", "gate:\n", "train: {seed: 1}\n"])
def test_what_is_absent_has_its_default(tmp_path: Path, text: str) -> None:
    assert _load(tmp_path, text) == OperationsConfig()


def test_params_yaml_holds_every_key_of_these_sections_and_their_defaults() -> None:
    written = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())

    assert load_operations(ROOT / "params.yaml") == OperationsConfig()
    assert {item.name for item in dataclasses.fields(OperationsConfig)} == set(OPERATIONS)
    for section in OPERATIONS:
        keys = {item.name for item in dataclasses.fields(getattr(OperationsConfig(), section))}
        assert set(written[section]) == keys, section


def test_no_stage_and_no_bundle_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("ops: {webhook: 'https://hooks/secret'}\nmodel: {preset: a}\npresets: {a: {}}\n")

    assert "secret" not in repr(load_config(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gate: {margn: 0.1}\n", "unknown key gate.margn"),
        ("gate: {margin: 2}\n", "gate.margin"),
        ("gate: {class_drops: {drone: -1}}\n", "gate.class_drops.drone"),
        ("gate: {protocol: ilsvrc}\n", "gate.protocol"),
        ("drift: {significance: 0}\n", "drift.significance"),
        ("retrain: {keep_bundles: 0}\n", "retrain.keep_bundles"),
        ("ops: 3\n", "ops"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        _load(tmp_path, text)
