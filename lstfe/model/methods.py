"""Comparators of the paper's tables, made of LSTFE-Net's own parts by configuration (`model.method`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lstfe.config import Config, ModelConfig, SamplingConfig


def resolve_method(config: Config) -> Config:
    """Switch off the parts that `model.method` does not have or no training clip feeds.

    Then no frames are sampled that nothing uses. A part without frames would keep parameters that get no gradient,
    for which processes wait for ever.
    """
    model = _fed(METHODS[config.model.method](config.model), config.sampling)
    aligned, stages = model.alignment.num_blocks > 0, model.relation.stages
    short_term = aligned or "short_term" in stages
    # The long-term frames of Fig. 4 enhance short-term proposals first: both are needed where both stages are.
    long_term = "long_term" in stages
    sampling = replace(
        config.sampling,
        num_short_term=config.sampling.num_short_term if short_term else 0,
        num_candidates=config.sampling.num_candidates if long_term else 0,
    )
    inference = replace(
        config.inference,
        num_alignment=config.inference.num_alignment if aligned else 0,
        num_relation=config.inference.num_relation if "short_term" in stages else 0,
        num_candidates=config.inference.num_candidates if long_term else 0,
        lookahead=config.inference.lookahead if short_term else 0,
    )
    return replace(config, model=model, sampling=sampling, inference=inference)


def _fed(model: ModelConfig, sampling: SamplingConfig) -> ModelConfig:
    """Leave out alignment and stages that get no frames in training."""
    absent = set()
    if sampling.num_short_term == 0:
        model = _without_alignment(model)
        absent.add("short_term")
    if min(sampling.num_candidates, model.selection.num_frames) == 0:
        absent.add("long_term")
    stages = tuple(stage for stage in model.relation.stages if stage not in absent)
    return replace(model, relation=replace(model.relation, stages=stages))


def _lstfe(model: ModelConfig) -> ModelConfig:
    return model


def _faster_rcnn(model: ModelConfig) -> ModelConfig:
    """All temporal parts off."""
    return _without_relations(_without_alignment(model))


def _selsa(model: ModelConfig) -> ModelConfig:
    """Long-term relations only, without location or selection."""
    relation = replace(model.relation, stages=("long_term", "long_term"), group_bias=False)
    selection = replace(model.selection, enabled=False)
    return replace(_without_alignment(model), relation=relation, selection=selection)


def _rdn(model: ModelConfig) -> ModelConfig:
    """Short-term relations with location and distillation, without the learnable weights mu."""
    relation = replace(model.relation, stages=("short_term",) * 3, group_bias=False)
    return replace(_without_alignment(model), relation=relation)


def _stsn(model: ModelConfig) -> ModelConfig:
    """Four cascaded alignments with cosine pixel weights, no relations."""
    alignment = replace(model.alignment, num_blocks=4)
    pixel = replace(model.pixel_aggregation, weights="cosine")
    return replace(_without_relations(model), alignment=alignment, pixel_aggregation=pixel)


def _without_alignment(model: ModelConfig) -> ModelConfig:
    return replace(model, alignment=replace(model.alignment, num_blocks=0))


def _without_relations(model: ModelConfig) -> ModelConfig:
    return replace(model, relation=replace(model.relation, stages=()))


METHODS: dict[str, Callable[[ModelConfig], ModelConfig]] = {
    "lstfe": _lstfe,
    "faster_rcnn": _faster_rcnn,
    "selsa": _selsa,
    "rdn": _rdn,
    "stsn": _stsn,
}
