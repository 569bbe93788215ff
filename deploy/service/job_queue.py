"""The queue: videos that wait, are detected and are remembered for a while.

A few threads each take one job at a time; its frames then take turns at the network with those of all other jobs
and streams. A job keeps the model that it began with.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque

from deploy.service.champion import Champion
from deploy.service.job_run import JobRun
from deploy.service.jobs import Job, JobState
from deploy.service.metrics import ServiceMetrics
from deploy.service.scheduler import FairScheduler
from deploy.service.settings import ServeSettings
from deploy.service.spool import Spool
from lstfe.errors import UserError

_log = logging.getLogger(__name__)
# Jobs under way end so soon when they are told to; what does not must not keep the process.
_STOP_S = 5.0
# How often results are looked through for those that are kept no longer.
_FORGET_S = 30.0


class QueueFullError(UserError):
    """Too many jobs wait already."""


class DrainingError(UserError):
    """The service takes no new work because it is about to end."""


class JobQueue:
    """All jobs of a service: waiting, running, and finished ones whose results are kept."""

    def __init__(
        self,
        settings: ServeSettings,
        *,
        champion: Champion,
        scheduler: FairScheduler,
        spool: Spool,
        metrics: ServiceMetrics,
    ) -> None:
        self._settings, self._champion, self._scheduler = settings, champion, scheduler
        self._spool, self._metrics = spool, metrics
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._reserved = 0
        self._running = 0
        self._changed = threading.Condition()
        self._is_draining = False
        self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"lstfe-job-{number}", daemon=True)
            for number in range(settings.running_jobs)
        ]
        self._ended = threading.Event()
        self._threads.append(threading.Thread(target=self._forget, name="lstfe-forget", daemon=True))

    @property
    def num_waiting(self) -> int:
        """Jobs that nobody works on yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Jobs under way."""
        return self._running

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def reserve(self, client: str) -> Job:
        """Make a job with a folder for its uploads; it takes a place in the queue until `submit` or `discard`.

        Raises QueueFullError, or DrainingError while the service ends.
        """
        with self._changed:
            if self._is_draining:
                raise DrainingError("the service is about to end; ask another or try again soon")
            if len(self._waiting) + self._reserved >= self._settings.max_queued_jobs:
                raise QueueFullError(f"{len(self._waiting)} jobs wait already; try again later")
            self._reserved += 1
        job_id = secrets.token_hex(16)
        try:
            return Job(job_id, client, self._spool.new_entry(job_id), [])
        except BaseException:  # a spool that is full or read-only
            with self._changed:
                self._reserved -= 1
            raise

    def submit(self, job: Job) -> None:
        """Put a reserved job into the queue; its videos are complete."""
        with self._changed:
            self._reserved -= 1
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._forget_old()
            self._changed.notify()

    def discard(self, job: Job) -> None:
        """Give a reserved place back, and remove what was uploaded."""
        with self._changed:
            self._reserved -= 1
        self._spool.remove_entry(job.id)

    def find(self, job_id: str, client: str) -> Job | None:
        """Return a client's job; those of others are as good as not there."""
        with self._changed:
            self._forget_old()
            job = self._jobs.get(job_id)
        return job if job is not None and job.client == client else None

    def place_of(self, job: Job) -> int:
        """Return how many jobs are before a waiting one."""
        with self._changed:
            return self._waiting.index(job) if job in self._waiting else 0

    def delete(self, job: Job) -> None:
        """Cancel a job and forget it with its results."""
        with self._changed:
            self._jobs.pop(job.id, None)
            if job in self._waiting:
                self._waiting.remove(job)
                self._finish(job, "cancelled")
        if job.is_finished:
            self._spool.remove_entry(job.id)
        else:
            job.abort("cancelled")

    def drain(self) -> None:
        """Take no new jobs from now on."""
        with self._changed:
            self._is_draining = True

    @property
    def is_idle(self) -> bool:
        """Whether no accepted job waits or runs."""
        return not (self._waiting or self._running or self._reserved)

    @property
    def has_unread_results(self) -> bool:
        """Whether a finished job's results were not yet asked for."""
        with self._changed:
            return any(job.state == "done" and not job.was_read for job in self._jobs.values())

    def stop(self) -> None:
        """End the threads; jobs under way fail, jobs that wait are cancelled."""
        with self._changed:
            self._is_draining = self._is_stopped = True
            for job in self._waiting:
                self._finish(job, "cancelled")
            self._waiting.clear()
            running = [job for job in self._jobs.values() if job.state == "running"]
            self._changed.notify_all()
        self._ended.set()
        for job in running:
            job.abort("the service ended")
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            _log.warning("a job does not end within %g s and is left behind", _STOP_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_stopped:
                    self._changed.wait()
                if self._is_stopped:
                    return
                job = self._waiting.popleft()
                job.state, job.started_at = "running", time.time()
                self._running += 1
            timer = threading.Timer(self._settings.job_timeout_s, job.abort, (self._too_long(),))
            timer.daemon = True
            timer.start()
            try:
                state = JobRun(job, self._settings, self._champion, self._scheduler, self._metrics).run()
            except Exception as error:  # a bug of ours must not take a worker from all later jobs
                _log.exception("job %s", job.id)
                state = job.fail(f"internal error ({type(error).__name__}); it is in the service's log")
            finally:
                timer.cancel()
            with self._changed:
                self._running -= 1
                self._finish(job, state)
                is_wanted = job.id in self._jobs
            if not is_wanted:
                self._spool.remove_entry(job.id)

    def _too_long(self) -> str:
        return f"took longer than {self._settings.job_timeout_s:g} s; cut the video into pieces"

    def _finish(self, job: Job, state: JobState) -> None:
        for video in job.videos:
            if video.path is not None:
                with contextlib.suppress(OSError):  # a spool that fails must not take the worker as well
                    video.path.unlink(missing_ok=True)
        job.state, job.finished_at = state, time.time()
        self._metrics.jobs.labels(state).inc()
        _log.info("job %s %s, %d detections", job.id, state, job.num_detections)

    def _forget(self) -> None:
        """Forget what is too old also while nobody asks for anything."""
        while not self._ended.wait(min(self._settings.keep_results_s, _FORGET_S)):
            with self._changed:
                self._forget_old()

    def _forget_old(self) -> None:
        finished = [job for job in self._jobs.values() if job.is_finished]
        spare = len(finished) - self._settings.max_kept_jobs
        expired = time.time() - self._settings.keep_results_s
        for place, job in enumerate(finished):
            if place < spare or (job.finished_at or 0.0) < expired:
                del self._jobs[job.id]
                self._spool.remove_entry(job.id)
