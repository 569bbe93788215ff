"""The promotion gate: numbers in, a decision with its reasons out. It measures nothing and touches nothing.

A challenger must be surely better (or, with a negative margin, surely no worse) than the champion on the same
videos, may lose little in any class and any size, must be the same detector after export, and may not be slower.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lstfe.errors import UserError
from pipelines.operations_config import GateConfig

_NO_TRUTH = "no ground truth to measure it on"


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """One figure of both detectors on the same videos."""

    challenger: float | None
    """None where there is no ground truth."""
    champion: float | None
    """None also where there is no champion."""
    interval: tuple[float, float] | None = None
    """95 % of challenger - champion; None where fewer than two videos have ground truth, or it was not asked for."""

    @property
    def difference(self) -> float | None:
        """Challenger - champion; None where either is unknown."""
        if self.challenger is None or self.champion is None:
            return None
        return self.challenger - self.champion


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that a decision rests on."""

    has_champion: bool
    ap50: Paired
    by_class: Mapping[str, Paired] = field(default_factory=dict)
    """AP50 by category."""
    by_size: Mapping[str, Paired] = field(default_factory=dict)
    """Average precision by size bin, under the protocol's names of the figures (APs, AP_tiny, ...)."""
    parity_difference: float
    """Largest relative difference between the exported graphs and PyTorch."""
    latency_ms: tuple[float, float | None]
    """Median processor time a frame of challenger and champion, in milliseconds; None without a champion."""
    labels: tuple[tuple[str, ...], tuple[str, ...] | None]
    """Category names of challenger and champion; None without a champion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One rule, and what it found."""

    name: str
    """`ap50`, `class drone`, `size APs`, `parity`, `latency`, `labels`."""
    passed: bool
    value: float | None
    limit: float | None
    reason: str
    """One line for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of a challenger, and why."""

    promote: bool
    checks: tuple[Check, ...]

    @property
    def summary(self) -> str:
        """Say in one line what was decided and what stood in the way."""
        refusals = [check.reason for check in self.checks if not check.passed]
        return f"refused: {'; '.join(refusals)}" if refusals else "accepted: every check passed"

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {"promote": self.promote, "summary": self.summary, "checks": [asdict(c) for c in self.checks]}

    def rows(self) -> list[list[str]]:
        """Return one row a check: name, outcome, value, limit, reason."""
        return [
            [c.name, "passed" if c.passed else "refused", _number(c.value), _number(c.limit), c.reason]
            for c in self.checks
        ]


COLUMNS = ("check", "outcome", "value", "limit", "reason")
"""Of `Decision.rows`."""


def decide(evidence: Evidence, gate: GateConfig) -> Decision:
    """Return whether the challenger becomes champion: when every check passes.

    UserError where the gate has a limit for a class or size that the evidence lacks: misspelt, it would not hold.
    """
    classes = tuple(evidence.by_class) or evidence.labels[0]
    _refuse_unknown("class_drops", gate.class_drops, classes)
    if evidence.by_class:  # else nothing was compared, and no size is known
        _refuse_unknown("size_drops", gate.size_drops, tuple(evidence.by_size))
    checks = list(_checks(evidence, gate))
    return Decision(promote=all(check.passed for check in checks), checks=tuple(checks))


def _refuse_unknown(key: str, limits: Mapping[str, float], known: Collection[str]) -> None:
    expected = f"one of {', '.join(known)}" if known else "none"
    for name in limits:
        if name not in known:
            raise UserError(
                f"gate.{key}: found {name!r}, expected {expected} as measured; mend it in params.yaml"
            )


def _checks(evidence: Evidence, gate: GateConfig) -> Iterable[Check]:
    yield _check_parity(evidence.parity_difference, gate)
    if not evidence.has_champion:
        yield _check_first(evidence.ap50.challenger, gate)
        return
    yield _check_labels(evidence.labels)
    yield _check_ap50(evidence.ap50, gate)
    for name, pair in evidence.by_class.items():
        yield _check_drop(f"class {name}", pair, gate.class_drops.get(name, gate.max_class_drop))
    for name, pair in evidence.by_size.items():
        yield _check_drop(f"size {name}", pair, gate.size_drops.get(name, gate.max_size_drop))
    yield _check_latency(evidence.latency_ms, gate)


def _check_first(ap50: float | None, gate: GateConfig) -> Check:
    limit = gate.first_min_ap50
    if ap50 is None:
        return _check("ap50", False, None, limit, f"AP50: {_NO_TRUTH}")
    reason = f"AP50 {ap50:.3f}, the first champion needs {limit:.3f}"
    return _check("ap50", ap50 >= limit, ap50, limit, reason)


def _check_labels(labels: tuple[tuple[str, ...], tuple[str, ...] | None]) -> Check:
    ours, theirs = labels
    if ours == theirs:
        return _check("labels", True, None, None, f"both detect {', '.join(ours)}")
    reason = f"detects {', '.join(ours)}, the champion {', '.join(theirs or ())}: not to be compared, promote by hand"
    return _check("labels", False, None, None, reason)


def _check_ap50(pair: Paired, gate: GateConfig) -> Check:
    limit = gate.margin
    if pair.difference is None:
        return _check("ap50", False, None, limit, f"AP50's difference: {_NO_TRUTH}")
    if pair.interval is None:
        reason = (
            f"AP50 {pair.difference:+.3f}, but no interval: too few videos with ground truth, or no resamples"
        )
        return _check("ap50", False, None, limit, reason)
    low, high = pair.interval
    reason = f"AP50 {pair.difference:+.3f} ({low:+.3f} to {high:+.3f}), must lie above {limit:+.3f}"
    return _check("ap50", low > limit, low, limit, reason)


def _check_drop(name: str, pair: Paired, limit: float) -> Check:
    if pair.difference is None:
        return _check(name, True, None, -limit, f"{name}: {_NO_TRUTH}")
    reason = f"{name} {pair.difference:+.3f}, may fall by {limit:.3f}"
    return _check(name, pair.difference >= -limit, pair.difference, -limit, reason)


def _check_parity(difference: float, gate: GateConfig) -> Check:
    limit = gate.max_parity_difference
    reason = f"exported graphs differ from PyTorch by {difference:.1e}, at most {limit:.1e}"
    return _check("parity", difference <= limit, difference, limit, reason)  # NaN is no parity


def _check_latency(latency_ms: tuple[float, float | None], gate: GateConfig) -> Check:
    ours, theirs = latency_ms
    limit = gate.max_latency_ratio
    if not theirs:
        return _check("latency", False, None, limit, "the champion's latency is unknown")
    ratio = ours / theirs
    reason = f"{ours:.2f} ms a frame, {ratio:.2f} times the champion's {theirs:.2f}, at most {limit:.2f}"
    return _check("latency", ratio <= limit, ratio, limit, reason)


def _check(name: str, passed: bool, value: float | None, limit: float | None, reason: str) -> Check:
    return Check(name=name, passed=passed, value=value, limit=limit, reason=reason)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
