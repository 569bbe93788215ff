"""dvc.yaml says the truth: stages, sections and code."""

from __future__ import annotations

import ast
import copy
import dataclasses
import operator
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lstfe.config import Config
from lstfe.params import RECIPES, load_config
from pipelines.stage import stage_order

ROOT = Path(__file__).parents[2]
STAGES = ("render", "prepare", "train", "evaluate", "export", "deploy")
PACKAGES = ("lstfe", "deploy", "pipelines")

# Code that watches or carries, and shapes no output. Every line needs its reason.
WITHOUT_EFFECT = {
    "lstfe/errors.py": "messages",
    "lstfe/config.py": "DVC compares the values themselves; train, where defaults count, depends on it",
    "lstfe/params.py": "DVC compares the values themselves; train, where presets are merged, depends on it",
    "pipelines/command.py": "exit codes",
    "pipelines/environment.py": "settings",
    "pipelines/identity.py": "names and tags",
    "pipelines/journal.py": "tracking",
    "pipelines/launch.py": "how many processes, which is no part of an experiment",
    "pipelines/mlflow_runs.py": "tracking",
    "pipelines/mlflow_store.py": "tracking",
    "pipelines/paths.py": "names of folders, which dvc.yaml repeats",
    "pipelines/tables.py": "output to the terminal",
    "pipelines/tracked_model.py": "tracking",
    "pipelines/tracking.py": "tracking",
}
# What a preset leaves out, and how it is merged: of these DVC sees no value.
SHAPE_THE_MODEL = {"lstfe/config.py", "lstfe/params.py"}
# Validation watches a training and never steers it: a new figure must not cost a new training.
WATCHES_TRAINING = ("lstfe/evaluation/", "lstfe/stream.py")


def _pipeline() -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(ROOT.joinpath("dvc.yaml").read_text()))


def _module_file(name: str) -> str | None:
    path = ROOT / Path(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file.relative_to(ROOT).as_posix()
    return None


@cache
def _imported_files(file: str) -> frozenset[str]:
    """The project's files that run when a file is imported; imports within functions belong to other uses."""
    names: set[str] = set()
    for node in ast.parse(ROOT.joinpath(file).read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    names |= {parent for name in names for parent in _parents(name)}
    inside = (_module_file(name) for name in names if name.split(".")[0] in PACKAGES)
    return frozenset(found for found in inside if found and not _is_empty(found))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _is_empty(file: str) -> bool:
    """Whether a file holds a docstring at most."""
    return not any(not isinstance(node, ast.Expr) for node in ast.parse(ROOT.joinpath(file).read_text()).body)


def _files_behind(stage: str) -> set[str]:
    start = f"pipelines/{stage}.py"
    seen, waiting = {start}, [start]
    while waiting:
        for found in _imported_files(waiting.pop()) - seen:
            if found in WITHOUT_EFFECT or (stage == "train" and found.startswith(WATCHES_TRAINING)):
                continue
            seen.add(found)
            waiting.append(found)
    return seen


def _code_deps(stage: str) -> list[str]:
    deps = _pipeline()["stages"][stage]["deps"]
    return [dep for dep in deps if dep.split("/")[0] in PACKAGES]


def _is_covered(file: str, deps: list[str]) -> bool:
    return any(file == dep or file.startswith(f"{dep}/") for dep in deps)


def test_dvc_reads_the_stages_in_the_order_of_the_design() -> None:
    assert tuple(stage_order(ROOT)) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_file_with_one_short_command(stage: str) -> None:
    assert _pipeline()["stages"][stage]["cmd"] == f"python -m pipelines.{stage}"
    assert len((ROOT / "pipelines" / f"{stage}.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_that_a_stage_imports_is_among_its_dependencies(stage: str) -> None:
    deps = _code_deps(stage)

    assert sorted(file for file in _files_behind(stage) if not _is_covered(file, deps)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_no_dependency_is_listed_that_the_stage_does_not_import(stage: str) -> None:
    used = _files_behind(stage) | SHAPE_THE_MODEL

    assert [dep for dep in _code_deps(stage) if not any(_is_covered(file, [dep]) for file in used)] == []


def test_train_depends_on_what_turns_a_preset_into_a_model() -> None:
    assert set(_code_deps("train")) >= SHAPE_THE_MODEL


def test_params_yaml_holds_every_key_of_every_section_but_model() -> None:
    """A default in config.py may then change without DVC noticing: only train depends on that file."""
    written = YAML(typ="safe", pure=True).load(ROOT.joinpath("params.yaml").read_text())
    for section in dataclasses.fields(Config):
        if section.name != "model":
            expected = {
                item.name
                for item in dataclasses.fields(getattr(load_config(ROOT / "params.yaml"), section.name))
            }
            assert set(written[section.name]) == expected, section.name


def _params(stage: str) -> set[str]:
    return set(_pipeline()["stages"][stage]["params"])


def _keys(section: str) -> set[str]:
    return {f"{section}.{item.name}" for item in dataclasses.fields(getattr(Config(), section))}


def test_train_depends_on_every_key_of_its_section_that_shapes_what_comes_out() -> None:
    assert _keys("train") - _params("train") == {"train.num_workers", "train.keep_checkpoints"}
    assert {name for name in _params("train") if name.startswith("train.")} <= _keys("train")


@cache
def _written() -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(ROOT.joinpath("params.yaml").read_text()))


def _with_preset(name: str) -> dict[str, Any]:
    params = copy.deepcopy(_written())
    params["model"]["preset"] = name
    return params


def _tracked(names: set[str], params: dict[str, Any]) -> list[Any]:
    """What DVC compares of params.yaml for a stage; KeyError where it would miss a key."""
    chosen = params["model"]["preset"]
    paths = [name.replace("${model.preset}", chosen).split(".") for name in sorted(names)]
    return [reduce(operator.getitem, path, params) for path in paths]


def _stale(changed: dict[str, Any], params: dict[str, Any]) -> set[str]:
    return {
        stage
        for stage, names in _params_by_stage().items()
        if _tracked(names, changed) != _tracked(names, params)
    }


@cache
def _params_by_stage() -> dict[str, set[str]]:
    return {stage: _params(stage) for stage in STAGES}


@pytest.mark.parametrize("chosen", ["tiny", "small", "parity"])
def test_a_number_of_the_chosen_preset_makes_those_stages_stale_that_use_it(chosen: str) -> None:
    params = _with_preset(chosen)
    for name, preset in params["presets"].items():
        for section in RECIPES:
            for key, value in preset[section].items():
                preset[section][key] = "another"
                users = {"train", "evaluate", "export", "deploy"} if section == "inference" else {"train"}
                assert _stale(params, _with_preset(chosen)) == (users if name == chosen else set()), key
                preset[section][key] = value


def test_a_value_that_goes_before_the_presets_makes_its_stage_stale() -> None:
    params = _with_preset("tiny")
    params["train"]["lr"] = 4e-4
    assert _stale(params, _with_preset("tiny")) == {"train"}


def test_no_preset_brings_a_key_that_shapes_nothing() -> None:
    """Train depends on the whole preset."""
    brought = {f"train.{key}" for preset in _written()["presets"].values() for key in preset["train"]}
    assert brought <= _params("train")


def test_export_and_the_users_of_its_bundle_share_the_keys_of_its_section() -> None:
    """What `lstfe engine` acts on must get into the bundle's configuration and costs no new graphs."""
    exported, deployed = (
        {name for name in _params(stage) if name.startswith("export.")} for stage in ("export", "deploy")
    )

    assert exported | deployed == _keys("export")
    assert exported & deployed == set()
    assert "evaluate.protocols" in _params("export"), "the parity check scores with them"


def test_every_output_is_cached_so_that_going_back_to_old_parameters_is_free() -> None:
    for stage in _pipeline()["stages"].values():
        assert all(isinstance(out, str) for out in stage["outs"])
        assert "metrics" not in stage
