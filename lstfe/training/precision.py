"""Which number formats the hardware computes in natively."""

from __future__ import annotations

import torch


def multiplies_bf16(device_type: str) -> bool:
    """Say whether matrix products in bfloat16 are faster than in float32 on this machine's `cuda` or `cpu`."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions bfloat16 is emulated and slower than float32.
    capabilities = torch.cpu.get_capabilities() if device_type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
