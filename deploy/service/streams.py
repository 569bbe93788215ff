"""WS /v1/streams: one camera a connection, frames in and detections out, the detector's state in between.

    in    binary   one frame, JPEG or PNG; all of one size
    in    text     {"type": "end"}: flush the last detections and close
    in    text     {"type": "cut"}: flush, and begin anew with the model now in service
    out   text     {"type": "ready", "model", "lookahead", "max_pending"}: at the start and after each cut
    out   text     {"type": "detections", "model", "frame_index", "detections": [{"bbox", "score", "category"}]}
    out   text     {"type": "end", "num_frames", "reason": "cut" | "end" | "draining"}: after the last detections
    out   text     {"type": "draining", "seconds"}: the service ends; send "end", or be cut off then
    out   text     {"type": "error", "message"}: the connection is closed after it

A frame's detections come when the `lookahead` frames after it have come. No more is read from the socket while
`max_pending` frames wait: a client that sends faster than the network works is slowed down, nothing is dropped.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from deploy.bundle import StreamDetector
from deploy.service.champion import Champion, ServedModel, as_answer
from deploy.service.decoder import LimitError
from deploy.service.metrics import ServiceMetrics
from deploy.service.pictures import decode_picture
from deploy.service.scheduler import FairScheduler, Lane
from deploy.service.settings import ServeSettings
from lstfe.errors import UserError
from lstfe.evaluation.records import to_records
from lstfe.types import ByteArray, FrameDetections

# Close codes of RFC 6455, and of its registry (1012: service restart).
_DONE, _BAD_MESSAGE, _BROKEN_RULE, _TOO_LARGE, _BUG, _RESTART = 1000, 1007, 1008, 1009, 1011, 1012


class StreamProtocolError(UserError):
    """A message that this protocol does not have."""


@dataclass(slots=True)
class _Take:
    """Frames between two cuts: they have one model and one detector."""

    model: ServedModel
    detector: StreamDetector
    num_frames: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one unit of work gave, or will give."""

    take: _Take
    found: Future[list[FrameDetections]]
    ends: str | None = None
    """Why the take ends with it: cut, end or draining; None where it does not."""


class StreamSession:
    """One connection, from its acceptance to its end."""

    def __init__(
        self,
        websocket: WebSocket,
        settings: ServeSettings,
        *,
        champion: Champion,
        scheduler: FairScheduler,
        metrics: ServiceMetrics,
    ) -> None:
        self._socket, self._settings = websocket, settings
        self._champion, self._scheduler, self._metrics = champion, scheduler, metrics
        self._outgoing: asyncio.Queue[_Answer | dict[str, Any] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(settings.max_pending_frames)
        self._cut_off = asyncio.Event()
        self._lane: Lane | None = None
        self._models: list[ServedModel] = []

    def announce_end(self, seconds: float) -> None:
        """Tell the client that the service ends in so many seconds."""
        self._outgoing.put_nowait({"type": "draining", "seconds": seconds})

    def cut_off(self) -> None:
        """Take no more frames; flush, and close."""
        self._cut_off.set()

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        self._lane = self._scheduler.open_lane()
        sender: asyncio.Task[None] | None = None
        receiver: asyncio.Task[int] | None = None
        try:
            await self._socket.accept()
            take = await self._new_take()
            sender = asyncio.create_task(self._send_all())
            receiver = asyncio.create_task(self._receive_all(take))
            await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (sender, receiver):  # the first one's exception, if it has one, is what happened
                if task.done():
                    task.result()
            await self._close(receiver.result())
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            await self._fail(_BROKEN_RULE, f"silent for {self._settings.stream_idle_s:g} s")
        except UserError as error:
            self._metrics.rejected.labels("frame").inc()
            await self._fail(_code_of(error), str(error))
        except Exception as error:
            await self._fail(_BUG, f"internal error ({type(error).__name__}); it is in the service's log")
            raise
        finally:
            await self._clean_up([task for task in (sender, receiver) if task is not None])

    # ---------------------------------------------------------------------------------------------- frames in

    async def _receive_all(self, take: _Take) -> int:
        """Take messages until the stream ends; return the code to close with."""
        while True:
            message = await self._next_message()
            if message is None:
                self._end(take, "draining")
                self._outgoing.put_nowait(None)
                return _RESTART
            if (content := message.get("bytes")) is not None:
                await self._push(take, content)
                continue
            command = _command(message.get("text"))
            self._end(take, command)
            if command == "end":
                self._outgoing.put_nowait(None)
                return _DONE
            take = await self._new_take()

    async def _next_message(self) -> dict[str, Any] | None:
        """Wait for the client's next message; None where the service wants the stream to end."""
        receiving = asyncio.create_task(self._socket.receive())
        ending = asyncio.create_task(self._cut_off.wait())
        try:
            done, _ = await asyncio.wait(
                {receiving, ending},
                timeout=self._settings.stream_idle_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                raise TimeoutError
            if receiving not in done:
                return None
            message = dict(receiving.result())
        finally:
            receiving.cancel()
            ending.cancel()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", _DONE))
        return message

    async def _push(self, take: _Take, content: bytes) -> None:
        settings = self._settings
        if len(content) > settings.max_image_bytes:
            raise LimitError(f"a frame of {len(content)} bytes, expected at most {settings.max_image_bytes}")
        await self._room.acquire()
        frame = await anyio.to_thread.run_sync(self._decode, content)
        take.num_frames += 1
        assert self._lane is not None
        self._outgoing.put_nowait(_Answer(take, self._lane.submit(lambda: take.detector.push(frame))))

    def _decode(self, content: bytes) -> ByteArray:
        return decode_picture(
            content, max_side_px=self._settings.max_side_px, max_frame_px=self._settings.max_frame_px
        )

    def _end(self, take: _Take, reason: str) -> None:
        assert self._lane is not None
        finish = take.detector.finish if take.num_frames else list
        self._outgoing.put_nowait(_Answer(take, self._lane.submit(finish), reason))

    async def _new_take(self) -> _Take:
        model = self._champion.acquire()
        self._models.append(model)
        take = _Take(model, await anyio.to_thread.run_sync(model.detector, None))
        self._outgoing.put_nowait(
            {
                "type": "ready",
                "model": as_answer(model.name),
                "lookahead": model.lookahead,
                "max_pending": self._settings.max_pending_frames,
            }
        )
        return take

    # ------------------------------------------------------------------------------------------ detections out

    async def _send_all(self) -> None:
        while (item := await self._outgoing.get()) is not None:
            if isinstance(item, dict):
                await self._send(item)
                continue
            try:
                found = await asyncio.wrap_future(item.found)
            finally:
                if item.ends is None:
                    self._room.release()
            for frame in found:
                await self._send(self._detections(item.take, frame))
            if item.ends is not None:
                self._give_back(item.take.model)
                await self._send({"type": "end", "num_frames": item.take.num_frames, "reason": item.ends})

    def _detections(self, take: _Take, frame: FrameDetections) -> dict[str, Any]:
        records = to_records(
            frame.detections, video="", frame_id=frame.frame_index, label_names=take.model.label_names
        )
        self._metrics.frames.labels("stream").inc()
        self._metrics.detections.inc(len(records))
        return {
            "type": "detections",
            "model": take.model.name.version,
            "frame_index": frame.frame_index,
            "detections": [
                {"bbox": record.bbox, "score": record.score, "category": record.category}
                for record in records
            ],
        }

    async def _send(self, message: dict[str, Any]) -> None:
        # A client that does not read fills the connection; it may not hold its place for ever.
        async with asyncio.timeout(self._settings.stream_idle_s):
            await self._socket.send_text(json.dumps(message, ensure_ascii=False))

    # ---------------------------------------------------------------------------------------------------- end

    async def _fail(self, code: int, message: str) -> None:
        try:
            if self._socket.client_state is WebSocketState.CONNECTED:
                await self._send({"type": "error", "message": message})
                await self._close(code)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            return  # nobody is there to hear it

    async def _close(self, code: int) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            await self._socket.close(code)

    async def _clean_up(self, tasks: list[asyncio.Task[Any]]) -> None:
        assert self._lane is not None
        self._lane.close()
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # also where this wait is cancelled, as whoever ends the connection's own task does
            for model in list(self._models):
                self._give_back(model)

    def _give_back(self, model: ServedModel) -> None:
        self._models.remove(model)
        self._champion.release(model)


def _command(text: str | None) -> str:
    try:
        command = json.loads(text or "")["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        command = None
    if command not in ("end", "cut"):
        raise StreamProtocolError('expected a picture (binary), {"type": "end"} or {"type": "cut"}')
    return str(command)


def _code_of(error: UserError) -> int:
    if isinstance(error, LimitError):
        return _TOO_LARGE
    return _BAD_MESSAGE if not isinstance(error, StreamProtocolError) else _BROKEN_RULE
