"""Everything that a running service holds, and how it starts, drains and ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from deploy.service.access import Access
from deploy.service.champion import Champion, NotReadyError
from deploy.service.job_queue import JobQueue
from deploy.service.metrics import ModelInfo, ServiceMetrics
from deploy.service.scheduler import FairScheduler
from deploy.service.settings import ServeSettings
from deploy.service.spool import Spool
from deploy.service.streams import StreamSession

_log = logging.getLogger(__name__)
# Finished results wait so long for somebody to fetch them before the process ends.
_LINGER_S = 5.0

Status = Literal["ready", "loading", "draining"]


class Service:
    """The parts of one service; built before the server starts, so that wrong settings end it at once."""

    def __init__(self, settings: ServeSettings) -> None:
        """Raises UserError for settings that cannot work together."""
        self.settings = settings
        self.access = Access(settings)
        self.metrics = ServiceMetrics()
        self.champion = Champion(
            bundle=settings.bundle,
            pointer=settings.pointer,
            backend=settings.backend,
            poll_s=settings.poll_s,
            reload_after_s=settings.reload_after_s,
            on_load=lambda outcome: self.metrics.loads.labels(outcome).inc(),
        )
        self.spool = Spool(settings.spool)
        self.scheduler = FairScheduler(settings.num_workers, observe=self.metrics.observe_unit)
        self.jobs = JobQueue(
            settings,
            champion=self.champion,
            scheduler=self.scheduler,
            spool=self.spool,
            metrics=self.metrics,
        )
        self.streams: set[StreamSession] = set()
        self.num_requests = 0
        self.is_draining = False
        self._add_gauges()

    @property
    def status(self) -> Status:
        """Whether new work is taken."""
        if self.is_draining:
            return "draining"
        return "loading" if self.champion.name is None else "ready"

    def require_ready(self) -> None:
        """Raise NotReadyError where new work is not taken."""
        if self.is_draining:
            raise NotReadyError("the service is about to end; ask another or try again soon")
        if self.champion.name is None:
            raise NotReadyError(
                self.champion.fault or "the model is being loaded; try again in a few seconds"
            )

    def start(self) -> None:
        """Begin to load the model and to work."""
        self.champion.start()
        self.jobs.start()

    async def drain(self) -> None:
        """Take no new work and wait until all work is done, at most `drain_s` seconds."""
        self.is_draining = True
        self.jobs.drain()
        seconds = self.settings.drain_s
        _log.info("draining: no new work, at most %g s for what runs", seconds)
        deadline = time.monotonic() + seconds
        # Cameras never end by themselves: they are cut off early enough to be flushed.
        last_frames = deadline - min(2.0, seconds / 4)
        for stream in self.streams:
            stream.announce_end(max(0.0, last_frames - time.monotonic()))
        await _wait(lambda: self.jobs.is_idle and not self.streams, last_frames)
        for stream in list(self.streams):
            stream.cut_off()
        await _wait(lambda: self.jobs.is_idle and not self.streams, deadline)
        is_done = self.jobs.is_idle and not self.streams
        await _wait(lambda: not self.jobs.has_unread_results, min(deadline, time.monotonic() + _LINGER_S))
        _log.info("drained" if is_done else "the time to drain is over; what still ran is given up")

    def stop(self) -> None:
        """End the threads and remove everything that was spooled."""
        self.is_draining = True
        self.jobs.stop()
        self.scheduler.stop()
        self.champion.stop()
        self.spool.close()

    def _add_gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("lstfe_jobs_waiting", "Jobs that nobody works on yet.", lambda: self.jobs.num_waiting)
        gauge("lstfe_jobs_running", "Jobs under way.", lambda: self.jobs.num_running)
        gauge(
            "lstfe_frames_waiting",
            "Decoded frames that wait for the network.",
            lambda: self.scheduler.num_waiting,
        )
        gauge("lstfe_streams_active", "Open streams.", lambda: len(self.streams))
        gauge("lstfe_requests_active", "Requests in the works.", lambda: self.num_requests)
        gauge("lstfe_ready", "1 while new work is taken.", lambda: float(self.status == "ready"))
        gauge(
            "lstfe_model_fault",
            "1 while the newest bundle cannot be loaded.",
            lambda: float(self.champion.fault is not None),
        )
        self.metrics.add(ModelInfo(self._versions))

    def _versions(self) -> tuple[str | None, list[str]]:
        name = self.champion.name
        return (None if name is None else name.version), self.champion.versions_in_use


async def _wait(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
