"""What Prometheus is told; every service has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FRAME_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_REQUEST_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0)


class ServiceMetrics:
    """Counters, histograms and gauges of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Histogram(
            "lstfe_request_seconds",
            "Time to answer a request, to its last byte.",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=_REQUEST_BUCKETS,
        )
        self.frame_seconds = Histogram(
            "lstfe_frame_seconds",
            "Time that the network takes for one frame, or to flush the last ones of a video.",
            registry=self.registry,
            buckets=_FRAME_BUCKETS,
        )
        self.wait_seconds = Histogram(
            "lstfe_frame_wait_seconds",
            "Time that a decoded frame waits for its turn at the network.",
            registry=self.registry,
            buckets=_FRAME_BUCKETS,
        )
        self.frames = Counter(
            "lstfe_frames",
            "Frames with detections; its rate is frames/s.",
            ("source",),
            registry=self.registry,
        )
        self.detections = Counter("lstfe_detections", "Detections of any score.", registry=self.registry)
        self.jobs = Counter("lstfe_jobs", "Jobs by how they ended.", ("state",), registry=self.registry)
        self.rejected = Counter(
            "lstfe_rejected",
            "Requests, videos and frames that were refused.",
            ("reason",),
            registry=self.registry,
        )
        self.loads = Counter(
            "lstfe_model_loads", "Bundles that were tried, by outcome.", ("outcome",), registry=self.registry
        )
        for outcome in ("loaded", "failed"):
            self.loads.labels(outcome)

    def observe_unit(self, waited: float, took: float) -> None:
        """Note one unit of the scheduler's work, in seconds."""
        self.wait_seconds.observe(waited)
        self.frame_seconds.observe(took)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def add(self, collector: Collector) -> None:
        """Add a family of metrics that is computed when it is asked for."""
        self.registry.register(collector)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class ModelInfo(Collector):
    """lstfe_model_info: 1 for every version in use, with its part in the service."""

    def __init__(self, versions: Callable[[], tuple[str | None, list[str]]]) -> None:
        """`versions` returns the version that new work gets, and all in use."""
        self._versions = versions

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the family."""
        family = GaugeMetricFamily("lstfe_model_info", "Model versions in use.", labels=("version", "role"))
        current, in_use = self._versions()
        for version in dict.fromkeys(in_use):
            family.add_metric((version, "current" if version == current else "finishing"), 1.0)
        return [family]
