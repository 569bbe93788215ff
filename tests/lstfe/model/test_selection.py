"""Frame selection against sorted Python lists, and the identities of an argmin of similarities."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lstfe.config import SelectionConfig
from lstfe.model.selection import describe_frame, select_frames, selection_scores

SIMILARITIES = ["cosine", "scaled_dot"]


def descriptors(clips: int = 3, candidates: int = 6, channels: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    current = torch.randn(clips, channels, generator=generator)
    return current, torch.randn(clips, candidates, channels, generator=generator)


def config(num_frames: int = 2, similarity: str = "cosine", *, enabled: bool = True) -> SelectionConfig:
    return SelectionConfig(enabled=enabled, num_frames=num_frames, similarity=similarity)  # type: ignore[arg-type]


def loop_similarity(first: list[float], second: list[float], similarity: str) -> float:
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    if similarity == "scaled_dot":
        return dot / math.sqrt(len(first))
    return dot / math.sqrt(sum(a * a for a in first) * sum(b * b for b in second))


@pytest.mark.parametrize("enabled", [True, False])
def test_no_candidate_leaves_nothing_to_keep(enabled: bool) -> None:
    current, candidates = descriptors(candidates=0)
    assert select_frames(current, candidates, config(enabled=enabled)).shape == (3, 0)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("num_frames", [0, 1, 2, 6, 9])
def test_the_m_least_similar_candidates_are_kept_most_different_first(
    similarity: str, num_frames: int
) -> None:
    current, candidates = descriptors()
    kept = select_frames(current, candidates, config(num_frames, similarity))
    for clip in range(len(current)):
        values = [loop_similarity(current[clip].tolist(), c.tolist(), similarity) for c in candidates[clip]]
        expected = sorted(range(len(values)), key=values.__getitem__)[:num_frames]
        assert kept[clip].tolist() == expected


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_scores_are_minus_the_similarity_of_a_loop(similarity: str) -> None:
    current, candidates = descriptors()
    scores = selection_scores(current, candidates, similarity)
    for clip, place in itertools.product(range(len(current)), range(candidates.shape[1])):
        similar = loop_similarity(current[clip].tolist(), candidates[clip, place].tolist(), similarity)
        assert scores[clip, place].item() == pytest.approx(-similar, abs=1e-6)


def test_ties_go_to_the_earlier_candidate() -> None:
    current = torch.ones(1, 4)
    assert select_frames(current, torch.ones(1, 5, 4), config(3)).tolist() == [[0, 1, 2]]


def test_an_identical_frame_is_not_kept_while_a_different_one_exists() -> None:
    current, candidates = descriptors()
    candidates[:, 0] = candidates[:, 3] = current
    assert not set(select_frames(current, candidates, config(4)).flatten().tolist()) & {0, 3}


def test_cosine_ignores_positive_scaling_and_the_dot_product_does_not() -> None:
    current, candidates = descriptors()
    scale = torch.tensor([0.1, 5.0, 1.0, 30.0, 0.5, 2.0])[:, None]
    kept = [select_frames(current, part, config(3)) for part in (candidates, candidates * scale)]
    assert torch.equal(*kept)
    dotted = [
        select_frames(current, part, config(3, "scaled_dot")) for part in (candidates, candidates * scale)
    ]
    assert not torch.equal(*dotted)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_permuted_candidates_give_the_same_frames_at_their_new_places(similarity: str) -> None:
    current, candidates = descriptors()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    kept = select_frames(current, candidates[:, order], config(3, similarity))
    assert torch.equal(order[kept], select_frames(current, candidates, config(3, similarity)))


def test_without_selection_the_first_candidates_are_kept() -> None:
    current, candidates = descriptors()
    assert select_frames(current, candidates, config(2, enabled=False)).tolist() == [[0, 1]] * 3


def test_no_gradient_passes_through_the_selection() -> None:
    current, candidates = (part.requires_grad_() for part in descriptors())
    assert not select_frames(current, candidates, config()).requires_grad


def test_an_all_zero_descriptor_is_scored_as_a_number() -> None:
    assert selection_scores(torch.zeros(1, 4), torch.zeros(1, 2, 4), "cosine").isfinite().all()


def test_a_frame_is_described_by_the_mean_of_each_channel() -> None:
    c5 = torch.randn(2, 3, 4, 5)
    described = describe_frame(c5)
    for frame, channel in itertools.product(range(2), range(3)):
        values = c5[frame, channel].flatten().tolist()
        assert described[frame, channel].item() == pytest.approx(sum(values) / 20, abs=1e-6)
