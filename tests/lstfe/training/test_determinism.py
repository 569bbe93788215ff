"""Seeds depend on the clip and the update alone."""

from __future__ import annotations

import pytest
import torch

from lstfe.training.determinism import clip_seeds, fixed_threads, mixed_seed, reproducible_cpu, seed_update


def test_no_clips_have_no_seeds() -> None:
    assert clip_seeds(0, range(0)) == []


def test_a_clips_seed_does_not_depend_on_who_draws_it() -> None:
    whole = clip_seeds(3, range(8, 16))
    assert clip_seeds(3, range(8, 12)) + clip_seeds(3, range(12, 16)) == whole
    assert len(set(whole)) == 8


def test_seeds_are_the_same_on_every_machine() -> None:
    # Written down once: another value here would end the exact resume of trainings that are under way.
    assert mixed_seed(0, "clip", 0) == 2949218163948838861
    assert mixed_seed(-1, "update", 10, 1) == 8474302873521739072


def test_seeds_fit_torchs_generators() -> None:
    seeds = [mixed_seed(number) for number in range(1000)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))


def test_an_update_draws_the_same_whatever_was_drawn_before() -> None:
    seed_update(0, 10, 0)
    expected = torch.rand(3)
    torch.rand(7)
    seed_update(0, 10, 0)
    assert torch.equal(torch.rand(3), expected)
    for other in ((1, 10, 0), (0, 11, 0), (0, 10, 1)):
        seed_update(*other)
        assert not torch.equal(torch.rand(3), expected)


def test_threads_are_fixed_for_the_block_alone() -> None:
    before = torch.get_num_threads()
    with fixed_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_choice_of_algorithms_is_undone_even_after_an_error() -> None:
    def fail() -> None:
        with reproducible_cpu(torch.device("cpu")):
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("stop")

    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.are_deterministic_algorithms_enabled() == before
    assert torch.utils.deterministic.fill_uninitialized_memory == fill


def test_a_gpu_keeps_its_fast_algorithms() -> None:
    with reproducible_cpu(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()
