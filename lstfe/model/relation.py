"""Long short-term feature aggregation: proposals of the current frame attend to those of the reference frames.

Paper 3.4, eq. 5-9, Fig. 4. Shapes: B clips, N query proposals, M reference proposals, S short-term frames with
P proposals each, D embedding, K groups of d = D / K channels.

Each stage is one scaled dot-product attention: eq. 7's second term, Sim(mu, W r), is a bias mu on the projected
queries, and eq. 9's location weight is an additive mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lstfe import boxes as box_geometry
from lstfe.config import RelationConfig

_POSITION_NUMBERS = 64
# Deviation: added to both distances of eq. 8, which for boxes with one center would give log 0.
_DISTANCE_EPS = 1e-3
# Keeps log(omega_r) finite for a closed gate.
_GATE_EPS = 1e-6
# Wavelengths of the sinusoid (Hu et al. 2018, 3.2): psi is scaled by 100 and divided by 1000^(i/8).
_WAVE_SCALE, _WAVE_BASE = 100.0, 1000.0


@dataclass(slots=True)
class RelatedProposals:
    """Proposals of one role on their way through the stages."""

    features: Tensor
    """(B, N, D)."""
    boxes: Tensor
    """(B, N, 4) pixels of the resized image."""
    valid: Tensor
    """(B, N) bool; False marks padding, which has no influence."""


class FeatureAggregation(nn.Module):
    """All stages in the configured order (paper Fig. 4 for one of them)."""

    def __init__(self, config: RelationConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(
            RelationStage(config, located=kind == "short_term" and config.variant == "full")
            for kind in config.stages
        )

    def forward(
        self,
        current: RelatedProposals,
        short_term: RelatedProposals,
        long_term: RelatedProposals,
        *,
        num_short: int,
    ) -> Tensor:
        """Enhance the current proposals: -> (B, N, D).

        `short_term` holds `num_short` frames one after the other, each with its proposals best first.
        """
        last_short = max((i for i, kind in enumerate(self.config.stages) if kind == "short_term"), default=-1)
        short_stages_done = 0
        for index, (kind, stage) in enumerate(zip(self.config.stages, self.stages, strict=True)):
            if kind == "long_term":
                current, short_term = self._long_term(
                    stage, current, short_term, long_term, still_needed=index < last_short
                )
            else:
                if short_stages_done == 1:
                    short_term = self._distilled(short_term, num_short)
                current, short_term = self._short_term(
                    stage,
                    current,
                    short_term,
                    num_short,
                    last=index == last_short,
                    first=short_stages_done == 0,
                )
                short_stages_done += 1
        return current.features

    def _long_term(
        self,
        stage: nn.Module,
        current: RelatedProposals,
        short_term: RelatedProposals,
        long_term: RelatedProposals,
        *,
        still_needed: bool,
    ) -> tuple[RelatedProposals, RelatedProposals]:
        """Enhance the short-term proposals (and the current ones) with the long-term ones."""
        if still_needed:
            short_term = _with_features(short_term, stage(short_term, long_term))
        if self.config.enhance_current or not still_needed:
            current = _with_features(current, stage(current, long_term))
        return current, short_term

    def _short_term(
        self,
        stage: nn.Module,
        current: RelatedProposals,
        short_term: RelatedProposals,
        num_short: int,
        *,
        first: bool,
        last: bool,
    ) -> tuple[RelatedProposals, RelatedProposals]:
        """Enhance the current proposals, and the best short-term ones for the stages to come."""
        enhanced = _with_features(current, stage(current, short_term))
        if last:
            return enhanced, short_term
        queries = self._distilled(short_term, num_short) if first else short_term
        queries = _with_features(queries, stage(queries, short_term))
        if first:
            # The rest keeps its features: it is dropped before the next short-term stage.
            return enhanced, self._replace_distilled(short_term, queries, num_short)
        return enhanced, queries

    def _num_distilled(self, per_frame: int) -> int:
        return max(1, round(per_frame * self.config.distill_ratio)) if per_frame else 0

    def _distilled(self, short_term: RelatedProposals, num_short: int) -> RelatedProposals:
        """Keep the best proposals of each frame (RDN's distillation)."""
        if num_short == 0 or short_term.features.shape[1] == 0:
            return short_term
        kept = self._num_distilled(short_term.features.shape[1] // num_short)

        def best(values: Tensor) -> Tensor:
            frames = values.reshape(len(values), num_short, -1, *values.shape[2:])
            return frames[:, :, :kept].flatten(1, 2)

        return RelatedProposals(best(short_term.features), best(short_term.boxes), best(short_term.valid))

    def _replace_distilled(
        self, short_term: RelatedProposals, distilled: RelatedProposals, num_short: int
    ) -> RelatedProposals:
        if num_short == 0 or short_term.features.shape[1] == 0:
            return short_term
        frames = short_term.features.unflatten(1, (num_short, -1))
        best = distilled.features.unflatten(1, (num_short, -1))
        features = torch.cat((best, frames[:, :, best.shape[2] :]), dim=2).flatten(1, 2)
        return _with_features(short_term, features)


class RelationStage(nn.Module):
    """One aggregation: x + concat_k softmax(logits^k + gate^k) V^k (eq. 6-9)."""

    def __init__(self, config: RelationConfig, *, located: bool) -> None:
        super().__init__()
        width = config.embedding
        self.config = config
        self.simple = nn.Linear(2 * width, width) if config.variant == "simple" else None
        self.location = LocationGate(config) if located else None
        if self.simple is None:
            # A bias on the query projection and mu would be the same parameter twice; one on the key projection
            # shifts all logits of a query alike, which softmax ignores.
            self.query = nn.Linear(width, width, bias=False)
            self.key = nn.Linear(width, width, bias=False)
            self.value = nn.Linear(width, width) if config.value_projection else None
            group_width = width // config.num_groups
            self.group_bias = (
                nn.Parameter(torch.empty(config.num_groups, group_width)) if config.group_bias else None
            )
        self._initialise()

    def forward(self, queries: RelatedProposals, references: RelatedProposals) -> Tensor:
        """Return the enhanced query features: (B, N, D), references (B, M, D) -> (B, N, D)."""
        x = queries.features
        if references.features.shape[1] == 0:
            return x
        if self.simple is not None:
            enhanced: Tensor = self._mix_mean(x, references)
            return enhanced
        gate = None if self.location is None else self.location(queries.boxes, references.boxes)
        return x + self.attend(x, references.features, references.valid, gate)

    def attend(self, x: Tensor, references: Tensor, valid: Tensor, gate: Tensor | None) -> Tensor:
        """Attend to the valid references: (B, N, D), (B, M, D), (B, M), (B, K, N, M) -> (B, N, D)."""
        query = self._grouped(self.query(x))  # (B, K, N, d)
        if self.group_bias is not None:
            query = query + self.group_bias[:, None]
        key = self._grouped(self.key(references))
        value = self._grouped(references if self.value is None else self.value(references))
        # A clip without any reference attends to its padding and throws the result away: no NaN from an empty softmax.
        any_valid = valid.any(dim=1)  # (B,)
        usable = valid | ~any_valid[:, None]
        mask = torch.zeros_like(valid, dtype=query.dtype).masked_fill(~usable, -math.inf)[:, None, None]
        mask = (
            mask.expand(-1, query.shape[1], query.shape[2], -1)
            if gate is None
            else mask + gate.to(query.dtype)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        attended = attended.transpose(1, 2).flatten(2)  # (B, N, D)
        return attended * any_valid[:, None, None]

    def _mix_mean(self, x: Tensor, references: RelatedProposals) -> Tensor:
        weights = references.valid.to(x.dtype)[:, :, None]
        mean = (references.features * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)  # (B, D)
        assert self.simple is not None
        mixed: Tensor = self.simple(torch.cat((x, mean[:, None].expand_as(x)), dim=2))
        return torch.where(references.valid.any(dim=1)[:, None, None], mixed, x)

    def _grouped(self, features: Tensor) -> Tensor:
        groups = self.config.num_groups
        # The width by number: of features without a proposal, -1 says nothing.
        grouped: Tensor = features.unflatten(2, (groups, self.config.embedding // groups))
        return grouped.transpose(1, 2)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.simple is not None:  # starts as "keep x"
            with torch.no_grad():
                self.simple.weight[:, : self.config.embedding] += torch.eye(self.config.embedding)
        elif self.group_bias is not None:
            nn.init.normal_(self.group_bias, std=0.01)


class LocationGate(nn.Module):
    """Location coding: how two boxes lie to each other, as a weight per group (eq. 8)."""

    def __init__(self, config: RelationConfig) -> None:
        super().__init__()
        self.additive = config.gate == "additive"
        self.sinusoid = config.location_embedding == "sinusoid"
        self.linear = nn.Linear(_POSITION_NUMBERS if self.sinusoid else 4, config.num_groups)

    def forward(self, queries: Tensor, references: Tensor) -> Tensor:
        """Return the gate added to the attention logits: (B, N, 4), (B, M, 4) -> (B, K, N, M)."""
        position = relative_position(queries, references)
        if self.sinusoid:
            position = sinusoid(position)
        weight = F.relu(self.linear(position)).permute(0, 3, 1, 2)
        return weight if self.additive else torch.log(weight + _GATE_EPS)


def relative_position(queries: Tensor, references: Tensor) -> Tensor:
    """Return psi of eq. 8, the query box in the denominators: (B, N, 4), (B, M, 4) -> (B, N, M, 4)."""
    x, y, width, height = (part[:, :, None] for part in box_geometry.centers_and_sizes(queries))
    ref_x, ref_y, ref_width, ref_height = (
        part[:, None] for part in box_geometry.centers_and_sizes(references)
    )
    # Padding boxes are all zero: any finite number will do for them.
    width, height, ref_width, ref_height = (
        side.clamp(min=_DISTANCE_EPS) for side in (width, height, ref_width, ref_height)
    )
    return torch.stack(
        (
            torch.log((x - ref_x).abs() / width + _DISTANCE_EPS),
            torch.log((y - ref_y).abs() / height + _DISTANCE_EPS),
            torch.log(width / ref_width),
            torch.log(height / ref_height),
        ),
        dim=-1,
    )


def sinusoid(position: Tensor) -> Tensor:
    """Lift each of the four numbers to 8 sines and 8 cosines: (..., 4) -> (..., 64)."""
    exponents = torch.arange(8, device=position.device, dtype=position.dtype) / 8
    angles = _WAVE_SCALE * position[..., None] / _WAVE_BASE**exponents  # (..., 4, 8)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def _with_features(proposals: RelatedProposals, features: Tensor) -> RelatedProposals:
    return RelatedProposals(features, proposals.boxes, proposals.valid)
