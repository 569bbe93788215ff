"""Parameters on disk: what is read, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lstfe.config import BackboneConfig, Config, ConfigError, ModelConfig, SamplingConfig
from lstfe.errors import UserError
from lstfe.params import LEFT_TO_PRESET, RECIPES, flatten, load_config, parse_config, save_config

PARAMS = Path(__file__).parents[2] / "params.yaml"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def with_preset(tmp_path: Path, preset: str) -> Path:
    yaml = YAML()
    values = yaml.load(PARAMS)
    values["model"]["preset"] = preset
    path = tmp_path / f"{preset}.yaml"
    yaml.dump(values, path)
    return path


# ------------------------------------------------------------------------------------------ what is read


def test_an_empty_section_list_is_all_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "{}")) == Config()


@pytest.mark.parametrize("preset", ["tiny", "small", "parity"])
def test_the_projects_params_load_under_every_preset(tmp_path: Path, preset: str) -> None:
    config = load_config(with_preset(tmp_path, preset))
    assert config.model.preset == preset


def test_the_presets_differ_where_the_specification_says(tmp_path: Path) -> None:
    small, parity = (load_config(with_preset(tmp_path, preset)).model for preset in ("small", "parity"))
    assert min(small.proposals.anchor_sizes) == 16
    assert min(parity.proposals.anchor_sizes) == 64
    assert parity.backbone.name == "resnet101"
    assert parity.backbone.reduce_channels is None
    assert not parity.pixel_aggregation.include_current


def test_the_preset_parity_trains_and_watches_as_the_paper_does(tmp_path: Path) -> None:
    config = load_config(with_preset(tmp_path, "parity"))
    train = config.train
    assert (train.optimizer, train.momentum, train.weight_decay, train.max_gradient_norm) == (
        "sgd",
        0.9,
        1e-4,
        None,
    )
    assert (train.lr, train.lr_batch_size, train.batch_size, train.alignment_lr_factor) == (0.001, 4, 4, 1.0)
    assert (train.schedule, train.warmup_iterations, train.gamma) == ("warmup_multistep", 500, 0.1)
    assert (train.iterations, train.milestones, train.still_iterations) == (120_000, (0.6667,), 0)
    assert (train.flip_probability, train.colour_jitter, train.image_scales) == (0.5, 0.0, (1.0,))
    assert (config.sampling.short_term_range, config.sampling.num_short_term) == (12, 2)
    windows = config.inference
    assert (windows.lookahead, windows.relation_range, windows.num_relation) == (12, 12, 24)


def test_what_one_of_the_projects_presets_brings_all_bring_and_the_sections_leave_to_them() -> None:
    written = YAML(typ="safe", pure=True).load(PARAMS)
    for section in RECIPES:
        left = {key for key, value in written[section].items() if value == LEFT_TO_PRESET}
        brought = [set(preset[section]) for preset in written["presets"].values()]
        assert brought == [left] * len(brought), section


RECIPE = """
model: {preset: a}
presets:
  a:
    train: {lr: 0.1, iterations: 7}
    inference: {lookahead: 5}
    sampling: {short_term_range: 4}
    relation: {num_groups: 8}
  b: {train: {lr: 0.2, iterations: 8}}
"""


def test_a_preset_brings_what_the_sections_leave_to_it(tmp_path: Path) -> None:
    text = RECIPE + "train: {lr: preset, iterations: preset, gamma: 0.5}\n"
    config = load_config(write(tmp_path, text + "inference: {lookahead: preset, seed: 3}"))
    assert (config.train.lr, config.train.iterations, config.train.gamma) == (0.1, 7, 0.5)
    assert (config.inference.lookahead, config.inference.seed) == (5, 3)
    assert config.sampling.short_term_range == 4  # nothing is said of it
    assert config.model.relation.num_groups == 8
    other = load_config(write(tmp_path, text.replace("preset: a", "preset: b")))
    assert (other.train.lr, other.train.iterations) == (0.2, 8)
    assert other.sampling.short_term_range == SamplingConfig().short_term_range


def test_a_value_in_a_section_goes_before_the_presets(tmp_path: Path) -> None:
    text = RECIPE + "train: {lr: 0.3, iterations: preset, max_gradient_norm: null}"
    train = load_config(write(tmp_path, text)).train
    assert (train.lr, train.iterations, train.max_gradient_norm) == (0.3, 7, None)


def test_a_preset_may_bring_null(tmp_path: Path) -> None:
    text = "model: {preset: a}\npresets: {a: {train: {max_gradient_norm: null}}}\ntrain: {max_gradient_norm: preset}"
    assert load_config(write(tmp_path, text)).train.max_gradient_norm is None


@pytest.mark.parametrize(
    ("written", "value"), [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("8E-4", 8e-4), ("1", 1.0), (".5", 0.5)]
)
def test_a_learning_rate_may_be_written_in_any_form_of_number(
    tmp_path: Path, written: str, value: float
) -> None:
    config = load_config(write(tmp_path, f"train:\n  lr: {written}\n"))
    assert config.train.lr == value


def test_the_preset_is_overridden_key_by_key(tmp_path: Path) -> None:
    text = """
        model: {preset: a, backbone: {width: 32}, relation: {stages: [long_term]}}
        presets:
          a: {image_short_side: 64, image_long_side: 96, backbone: {name: resnet34, width: 16}}
          b: {image_short_side: 128}
    """
    model = load_config(write(tmp_path, text)).model
    assert model.preset == "a"
    assert model.image_short_side == 64
    assert model.backbone.name == "resnet34"
    assert model.backbone.width == 32
    assert model.relation.stages == ("long_term",)


def test_a_preset_may_be_empty(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "model: {preset: a}\npresets: {a: }")).model == ModelConfig(preset="a")


def test_one_presets_values_do_not_reach_another(tmp_path: Path) -> None:
    text = "model: {preset: b}\npresets: {a: {backbone: {width: 16}}, b: {image_short_side: 128}}"
    assert load_config(write(tmp_path, text)).model.backbone.width == BackboneConfig().width


@pytest.mark.parametrize("preset", ["tiny", "small", "parity"])
def test_a_saved_config_loads_back_equal(tmp_path: Path, preset: str) -> None:
    config = load_config(with_preset(tmp_path, preset))
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(("preset", "number"), [("tiny", 2), ("small", 4), ("parity", 4)])
def test_the_projects_clips_have_twice_as_many_candidates_as_are_kept(
    tmp_path: Path, preset: str, number: int
) -> None:
    config = load_config(with_preset(tmp_path, preset))
    assert config.sampling.num_candidates == config.inference.num_candidates == number
    assert number == 2 * config.model.selection.num_frames


@pytest.mark.parametrize(
    "sampling", ["", "sampling: {num_candidates: null}", "sampling: {num_short_term: 2}"]
)
@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("selection: {num_frames: 3}", 6),
        ("selection: {num_frames: 3, enabled: false}", 3),
        ("selection: {num_frames: 3}, method: selsa", 3),
        ("selection: {num_frames: 0}", 0),
    ],
)
def test_candidates_left_open_follow_the_frames_kept(
    tmp_path: Path, sampling: str, model: str, number: int
) -> None:
    text = f"{sampling}\ninference: {{num_candidates: 9}}\nmodel: {{{model}}}"
    config = load_config(write(tmp_path, text))
    assert (config.sampling.num_candidates, config.inference.num_candidates) == (number, 9)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_config(Config(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_saved_config_holds_every_number(tmp_path: Path) -> None:
    save_config(Config(), tmp_path / "config.yaml")
    saved = YAML(typ="safe", pure=True).load(tmp_path / "config.yaml")
    assert set(saved) == {field.name for field in dataclasses.fields(Config)}
    assert saved["model"]["alignment"]["num_blocks"] == 1


def test_flat_names_are_dotted_and_lead_to_leaves() -> None:
    flat = flatten(Config())
    assert flat["model.alignment.num_blocks"] == 1
    assert flat["train.lr"] == Config().train.lr
    assert not any(dataclasses.is_dataclass(value) for value in flat.values())


# --------------------------------------------------------------------------------------- what is refused


def refusal(tmp_path: Path, text: str) -> str:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert all(line.startswith(str(path)) for line in message.splitlines()), message
    assert isinstance(caught.value, UserError)
    return message.replace(str(path), "params.yaml")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: {learning_rate: 0.1}", "train.learning_rate"),
        ("trian: {lr: 0.1}", "trian"),
        ("model: {backbone: {depth: 50}}", "model.backbone.depth"),
        ("model: {preset: a}\npresets: {a: {alignement: {num_blocks: 1}}}", "model.alignement"),
        ("model: {preset: a}\npresets: {a: {train: {learning_rate: 1}}}", "train.learning_rate"),
    ],
)
def test_an_unknown_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    assert refusal(tmp_path, text) == f"params.yaml: unknown key {key}; remove it or correct its spelling"


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ('train: {lr: "fast"}', "train.lr", "'fast' (str)"),
        ('train: {iterations: "600"}', "train.iterations", "'600' (str)"),
        ("train: {iterations: 3.5}", "train.iterations", "3.5 (float)"),
        ("train: {iterations: true}", "train.iterations", "True (bool)"),
        ("train: {iterations: null}", "train.iterations", "None (NoneType)"),
        ("train: {optimizer: adam}", "train.optimizer", "'adam' (str)"),
        ("train: 5", "train", "5 (int)"),
        ("render: {image_size: 240}", "render.image_size", "240 (int)"),
        ("evaluate: {protocols: [map]}", "evaluate.protocols.0", "'map' (str)"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_what_was_found(
    tmp_path: Path, text: str, key: str, found: str
) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"params.yaml: {key}: ")
    assert message.endswith(f"got {found}")


def test_a_tuple_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    assert "render.image_size" in refusal(tmp_path, "render: {image_size: [240]}")


def test_every_fault_has_its_own_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, "train: {learning_rate: 1, iterations: many}\nprepare: {jpeg_quality: 0}")
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("section", ["[1, 2]", "5", "text"])
def test_a_file_without_sections_is_refused(tmp_path: Path, section: str) -> None:
    assert "expected sections" in refusal(tmp_path, section)


@pytest.mark.parametrize("text", ["train: {lr: 1", "train:\n\tlr: 1", "a: 1\na: 2"])
def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith("params.yaml: not readable as YAML")
    assert len(message.splitlines()) == 1


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00train")
    with pytest.raises(ConfigError, match="not readable"):
        load_config(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "model: {preset: huge}\npresets: {a: {}}",
        "model: {}\npresets: {a: {}}",
        "presets: {a: {}}",
        "model: {preset: [a]}\npresets: {a: {}}",
    ],
)
def test_an_unknown_preset_is_refused_with_the_known_ones(tmp_path: Path, text: str) -> None:
    assert "model.preset must be one of a, got" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: 5\npresets: {a: {}}", "model: expected keys with values, got 5 (int)"),
        ("model: {preset: a}\npresets: 5", "presets: expected keys with values, got 5 (int)"),
        ("model: {preset: a}\npresets: {a: 5}", "presets.a: expected keys with values, got 5 (int)"),
        (
            "model: {preset: a}\npresets: {a: {train: 5}}",
            "presets.a.train: expected keys with values, got 5 (int)",
        ),
        ("model: {preset: a}\npresets: {a: {}}\ntrain: 5", "train: expected keys with values, got 5 (int)"),
        ("model: [preset]\npresets: {a: {}}", "model: expected keys with values, got ['preset'] (list)"),
        ("data: {name: 2020-01-01}", "a value is not a plain number, text, list or section"),
    ],
)
def test_a_section_of_the_wrong_kind_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert refusal(tmp_path, text).startswith(f"params.yaml: {expected}")


def test_what_is_left_to_a_preset_that_does_not_bring_it_is_refused(tmp_path: Path) -> None:
    text = (
        "model: {preset: b}\npresets: {a: {train: {lr: 0.1}}, b: {train: {gamma: 0.1}}}\ntrain: {lr: preset}"
    )
    assert refusal(tmp_path, text) == (
        "params.yaml: train.lr is left to the preset, but presets.b.train has no such key; add it there, or give a "
        "value here"
    )
    without = "model: {preset: a}\npresets: {a: }\ninference: {seed: preset}"
    assert "presets.a.inference has no such key" in refusal(tmp_path, without)


def test_an_impossible_value_in_a_file_keeps_its_sentence(tmp_path: Path) -> None:
    assert refusal(tmp_path, "train: {lr: -1.0}") == "params.yaml: train.lr must be > 0 and finite, got -1.0"


CHOOSING = "model: {preset: a, selection: {num_frames: 2}}\npresets: {a: {}}\n"


@pytest.mark.parametrize("section", ["sampling", "inference"])
def test_a_selection_that_keeps_every_candidate_is_refused(tmp_path: Path, section: str) -> None:
    message = refusal(tmp_path, f"{CHOOSING}{section}: {{num_candidates: 2}}")
    assert message == (
        f"params.yaml: {section}.num_candidates 2 must be 0 or more than model.selection.num_frames 2, or there is "
        "nothing to select; set null for 4, or model.selection.enabled: false"
    )


@pytest.mark.parametrize(
    "text",
    [
        CHOOSING + "sampling: {num_candidates: 3}",
        CHOOSING + "sampling: {num_candidates: 0}",
        CHOOSING.replace("num_frames: 2", "num_frames: 0") + "sampling: {num_candidates: 1}",
        CHOOSING.replace("num_frames: 2", "enabled: false") + "sampling: {num_candidates: 2}",
        CHOOSING.replace("preset: a", "preset: a, method: selsa") + "sampling: {num_candidates: 2}",
        CHOOSING.replace("preset: a", "preset: a, relation: {stages: []}") + "sampling: {num_candidates: 2}",
        "sampling: {num_candidates: 2}",  # a saved one, without presets
    ],
)
def test_where_there_is_a_choice_or_none_is_wanted_any_number_of_candidates_will_do(
    tmp_path: Path, text: str
) -> None:
    assert load_config(write(tmp_path, text)).sampling.num_candidates in (0, 1, 2, 3)


def test_values_that_are_no_plain_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="configuration: a value is not a plain number"):
        parse_config({"train": {"lr": object()}})
