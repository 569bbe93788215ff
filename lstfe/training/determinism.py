"""Seeds that depend on what is trained, never on what ran before or on how many processes train it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def mixed_seed(*parts: int | str) -> int:
    """Return a seed in 0..2**63-1, the same for the same parts on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def clip_seeds(seed: int, clip_numbers: range) -> list[int]:
    """Return one seed per clip, for the random sampling of its anchors and RoIs."""
    return [mixed_seed(seed, "clip", number) for number in clip_numbers]


def seed_update(seed: int, iteration: int, rank: int) -> None:
    """Seed the global generators for one update: a resumed run draws what the uninterrupted one drew."""
    torch.manual_seed(mixed_seed(seed, "update", iteration, rank))


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute with so many threads on the CPU: sums are split among them, so the last bits depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reproducible_cpu(device: torch.device) -> Iterator[None]:
    """On the CPU, choose algorithms that give the same bits however many threads run; a GPU is left alone."""
    if device.type != "cpu":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Only of use to find reads of uninitialised memory, and it costs a pass over every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
