"""Frame selection: of the long-term candidates, keep those least similar to the current frame.

Paper 3.3, eq. 3-4, Fig. 3. Shapes: B clips, L candidates, m kept frames, E channels of the descriptor.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lstfe.config import SelectionConfig


def describe_frame(c5: Tensor) -> Tensor:
    """Return g(F), the global average of C5: (N, E, h, w) -> (N, E)."""
    return c5.mean(dim=(2, 3))


def selection_scores(current: Tensor, candidates: Tensor, similarity: str) -> Tensor:
    """Return minus the similarity of each candidate, higher = more added context: (B, E), (B, L, E) -> (B, L)."""
    current, candidates = current.float(), candidates.float()
    if similarity == "cosine":
        return -F.cosine_similarity(current[:, None], candidates, dim=2)
    return -(current[:, None] * candidates).sum(dim=2) / math.sqrt(current.shape[1])


@torch.no_grad()
def select_frames(current: Tensor, candidates: Tensor, config: SelectionConfig) -> Tensor:
    """Return the places of the m most different candidates: (B, E), (B, L, E) -> (B, min(m, L)) int64.

    Ties go to the earlier candidate. No gradient: eq. 3 is an argmin.
    """
    kept = min(config.num_frames, candidates.shape[1])
    if not config.enabled:
        return torch.arange(kept, device=current.device).expand(len(current), kept)
    scores = selection_scores(current, candidates, config.similarity)
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :kept]
