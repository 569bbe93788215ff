"""Parameters on disk: params.yaml -> Config -> a saved config.yaml, and flat for trackers.

`load_config` reads params.yaml and resolves `model` (a preset plus overrides), what the other sections leave to the
preset, and the numbers of candidates that depend on the model. Past it there are no dicts.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lstfe.config import Config, ConfigError, ModelConfig

OPERATIONS = ("gate", "retrain", "drift", "ops")
"""Sections of params.yaml for the flows alone (pipelines/operations_config.py): no model depends on them."""
LEFT_TO_PRESET = "preset"
"""A value that stands for the chosen preset's."""
RECIPES = ("sampling", "inference", "train")
"""Sections that a preset may bring beside the keys of `model`."""
_WITH_CANDIDATES = ("sampling", "inference")
"""Sections whose `num_candidates` may be left to the model."""


def load_config(path: Path | str = "params.yaml") -> Config:
    """Read params.yaml (or a saved config.yaml) into a Config; raises ConfigError with one line per fault."""
    path = Path(path)
    values = {name: value for name, value in read_sections(path).items() if name not in OPERATIONS}
    presets = values.pop("presets", None)
    if presets is not None:
        values |= _resolve_preset(values, presets, path)
    config = parse_config(values, where=str(path))
    if presets is not None:  # saved ones may be older than this rule, and are used as they are
        _require_a_choice(config, path)
    return config


def parse_config(values: dict[str, Any], *, where: str = "configuration") -> Config:
    """Build a Config from plain values, checking every type; `where` starts the error message."""
    sections = {name: values.get(name, {}) for name in _WITH_CANDIDATES}
    open_sections = {
        name: {key: value for key, value in section.items() if key != "num_candidates"}
        for name, section in sections.items()
        if isinstance(section, dict) and section.get("num_candidates") is None
    }
    try:
        # Through JSON: pydantic's strict mode takes a JSON array for a tuple, but never "3" or 3.5 for an int.
        config = TypeAdapter(Config).validate_json(json.dumps(values | open_sections))
    except (ValidationError, TypeError) as error:
        raise ConfigError(describe_faults(error, where)) from None
    number = _candidates_of(config.model)
    changed: dict[str, Any] = {
        name: dataclasses.replace(getattr(config, name), num_candidates=number) for name in open_sections
    }
    return dataclasses.replace(config, **changed)


def save_config(config: Config, path: Path) -> None:
    """Write a resolved Config, so that `load_config(path)` gives it back equal."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(json.loads(json.dumps(dataclasses.asdict(config))), file)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names -> leaf values, for trackers: {'model.alignment.num_blocks': 1, ...}."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, name + ".")
        else:
            flat[name] = value
    return flat


def read_sections(path: Path) -> dict[str, Any]:
    """Read the sections of a file as plain values; ConfigError where it is no YAML of sections."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, expected the project's parameters")
    try:
        # YAML 1.2 as DVC reads it: 1e-4 is a number, not a string.
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections (data:, model:, ...), found {type(values).__name__}")
    return values


def _resolve_preset(values: dict[str, Any], presets: Any, path: Path) -> dict[str, Any]:
    """Return `model` and the sections that a preset may bring, both merged with the chosen preset."""
    overrides, presets = _section(values.get("model"), "model", path), _section(presets, "presets", path)
    name = overrides.get("preset")
    if not isinstance(name, str) or name not in presets:
        raise ConfigError(f"{path}: model.preset must be one of {', '.join(presets)}, got {name!r}")
    model = dict(_section(presets[name], f"presets.{name}", path))
    resolved: dict[str, Any] = {}
    for section in RECIPES:
        brought = _section(model.pop(section, None), f"presets.{name}.{section}", path)
        own = _section(values.get(section), section, path)
        left = [key for key, value in own.items() if value == LEFT_TO_PRESET]
        if missing := [key for key in left if key not in brought]:
            raise ConfigError(
                f"{path}: {section}.{missing[0]} is left to the preset, but presets.{name}.{section} has no such key; "
                "add it there, or give a value here"
            )
        resolved[section] = brought | {key: value for key, value in own.items() if key not in left}
    return resolved | {"model": _merge(model, overrides)}


def _candidates_of(model: ModelConfig) -> int:
    """Return how many long-term candidates a clip has where nobody says so: the paper's 2m, or m without a choice."""
    return (2 if _selects_frames(model) else 1) * model.selection.num_frames


def _selects_frames(model: ModelConfig) -> bool:
    # The comparators do not (lstfe/model/methods.py).
    return model.method == "lstfe" and model.selection.enabled


def _require_a_choice(config: Config, path: Path) -> None:
    """Raise ConfigError where all candidates are kept, so that the frame selection does nothing."""
    kept = config.model.selection.num_frames
    if not _selects_frames(config.model) or "long_term" not in config.model.relation.stages:
        return
    numbers = {name: getattr(config, name).num_candidates for name in _WITH_CANDIDATES}
    faults = [
        f"{path}: {name}.num_candidates {number} must be 0 or more than model.selection.num_frames {kept}, or there is "
        f"nothing to select; set null for {_candidates_of(config.model)}, or model.selection.enabled: false"
        for name, number in numbers.items()
        if 0 < number <= kept
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def _section(value: Any, name: str, path: Path) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: {name}: expected keys with values, got {value!r} ({type(value).__name__})"
        )
    return value


def _merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def describe_faults(error: ValidationError | TypeError, where: str) -> str:
    """Say in one line a fault what is wrong with a value, and where."""
    if isinstance(error, TypeError):
        return f"{where}: a value is not a plain number, text, list or section: {error}"
    lines = []
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            lines.append(f"{where}: unknown key {name}; remove it or correct its spelling")
        elif fault["type"] == "value_error":
            lines.append(f"{where}: {fault['ctx']['error']}")
        else:
            found = fault["input"]
            lines.append(f"{where}: {name}: {fault['msg']}, got {found!r} ({type(found).__name__})")
    return "\n".join(lines)
