from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from deploy.bundle import open_bundle
from deploy.service.service import Service
from lstfe.evaluation.records import to_records
from lstfe.types import ByteArray

LOOKAHEAD = 2  # of the tiny bundle


def png(frame: ByteArray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "PNG")
    return out.getvalue()


def until_end(socket: Any) -> list[dict[str, Any]]:
    """Read messages up to `end`, that one included."""
    messages = [socket.receive_json()]
    while messages[-1]["type"] != "end":
        messages.append(socket.receive_json())
    return messages


def closed_with(socket: Any) -> int:
    """Return the code that the connection was closed with; no message comes before."""
    with pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_json()
    return caught.value.code


def test_a_stream_without_frames_ends_well(serve: Callable[..., Any]) -> None:
    with serve().stream() as socket:
        ready = socket.receive_json()
        assert (ready["type"], ready["lookahead"], ready["max_pending"]) == ("ready", LOOKAHEAD, 8)
        socket.send_json({"type": "end"})
        assert socket.receive_json() == {"type": "end", "num_frames": 0, "reason": "end"}
        assert closed_with(socket) == 1000


def test_a_stream_gives_what_the_detector_gives(
    serve: Callable[..., Any], make_frames: Callable[..., Iterator[ByteArray]], bundle_dir: Path
) -> None:
    frames = list(make_frames(6))
    bundle = open_bundle(bundle_dir)
    detector = bundle.detector()
    expected = [found for frame in frames for found in detector.push(frame)] + detector.finish()
    with serve().stream() as socket:
        version = socket.receive_json()["model"]["version"]
        for frame in frames:
            socket.send_bytes(png(frame))
        # The first answers come while the stream is open: a camera does not end.
        messages = [socket.receive_json() for _ in range(len(frames) - LOOKAHEAD)]
        socket.send_json({"type": "end"})
        messages += until_end(socket)
    assert messages.pop() == {"type": "end", "num_frames": 6, "reason": "end"}
    assert [message["frame_index"] for message in messages] == [found.frame_index for found in expected]
    assert {message["model"] for message in messages} == {version}
    for message, found in zip(messages, expected, strict=True):
        records = to_records(found.detections, video="", frame_id=0, label_names=bundle.label_names)
        assert message["detections"] == [
            {"bbox": list(record.bbox), "score": record.score, "category": record.category}
            for record in records
        ]


def test_a_cut_flushes_and_begins_anew_with_the_newest_model(
    serve: Callable[..., Any],
    promote: Callable[..., Path],
    make_frames: Callable[..., Iterator[ByteArray]],
    wait_for: Callable[..., Any],
) -> None:
    running = serve(bundle=None, pointer=promote("3"))
    with running.stream() as socket:
        assert socket.receive_json()["model"]["version"] == "3"
        first, second = list(make_frames(3)), list(make_frames(2, (80, 64)))
        for frame in first:
            socket.send_bytes(png(frame))
        promote("4")
        wait_for(lambda: running.client.get("/readyz").json()["model"]["version"] == "4")
        assert running.client.get("/readyz").json()["versions_in_use"] == ["3", "4"]
        socket.send_json({"type": "cut"})
        *found, end = until_end(socket)
        assert [(message["model"], message["frame_index"]) for message in found] == [
            ("3", 0),
            ("3", 1),
            ("3", 2),
        ]
        assert end == {"type": "end", "num_frames": 3, "reason": "cut"}
        assert socket.receive_json()["model"]["version"] == "4"
        for frame in second:  # another size is no matter after a cut
            socket.send_bytes(png(frame))
        socket.send_json({"type": "end"})
        *found, end = until_end(socket)
        assert [(message["model"], message["frame_index"]) for message in found] == [("4", 0), ("4", 1)]
        assert running.client.get("/readyz").json()["versions_in_use"] == ["4"]


def send_other_size(socket: Any, frames: list[ByteArray]) -> None:
    socket.send_bytes(png(frames[0]))
    socket.send_bytes(png(frames[0][:32]))


@pytest.mark.parametrize(
    ("send", "code", "message"),
    [
        (lambda socket, frames: socket.send_bytes(b"rubbish"), 1007, "expected a whole JPEG or PNG"),
        (lambda socket, frames: socket.send_bytes(b""), 1007, "expected a whole JPEG or PNG"),
        (lambda socket, frames: socket.send_text("hello"), 1008, "expected a picture"),
        (lambda socket, frames: socket.send_text("[" * 100_000), 1008, "expected a picture"),
        (lambda socket, frames: socket.send_text('{"type": 1}'), 1008, "expected a picture"),
        (
            lambda socket, frames: socket.send_bytes(png(np.zeros((10, 101, 3), np.uint8))),
            1009,
            "at most 100 a side",
        ),
        (lambda socket, frames: socket.send_bytes(bytes(20_001)), 1009, "expected at most 20000"),
        (send_other_size, 1007, "expected (64, 96) like the frames before"),
    ],
)
def test_a_wrong_message_ends_the_stream_with_its_reason(
    serve: Callable[..., Any],
    make_frames: Callable[..., Iterator[ByteArray]],
    send: Callable[[Any, list[ByteArray]], None],
    code: int,
    message: str,
) -> None:
    running = serve(max_side_px=100, max_image_bytes=20_000)
    with running.stream() as socket:
        socket.receive_json()
        send(socket, list(make_frames(1)))
        error = socket.receive_json()
        assert error["type"] == "error"
        assert message in error["message"]
        assert closed_with(socket) == code
    assert 'lstfe_rejected_total{reason="frame"} 1.0' in running.client.get("/metrics").text


def test_a_silent_stream_is_ended(serve: Callable[..., Any]) -> None:
    with serve(stream_idle_s=0.1).stream() as socket:
        socket.receive_json()
        assert socket.receive_json() == {"type": "error", "message": "silent for 0.1 s"}
        assert closed_with(socket) == 1008


def test_one_stream_too_many_is_told_to_come_back(
    serve: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    running = serve(max_streams=1)
    with running.stream() as socket:
        socket.receive_json()
        denial = running.denied_stream()
        assert (denial.status_code, denial.headers["Retry-After"]) == (429, "2")
        assert "lstfe_streams_active 1.0" in running.client.get("/metrics").text
    wait_for(lambda: not running.service.streams)
    with running.stream() as socket:
        assert socket.receive_json()["type"] == "ready"


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({"tokens": "a-token-of-the-first-client"}, {}, 401),
        ({}, {"Origin": "https://evil.example"}, 403),
        ({}, {"Host": "evil.example"}, 421),
    ],
)
def test_who_may_not_ask_gets_no_stream(
    serve: Callable[..., Any], settings: dict[str, str], headers: dict[str, str], status: int
) -> None:
    assert serve(**settings).denied_stream(**headers).status_code == status


def test_a_client_that_goes_away_gives_its_model_back(
    serve: Callable[..., Any], make_frames: Callable[..., Iterator[ByteArray]], wait_for: Callable[..., Any]
) -> None:
    running = serve()
    with running.stream() as socket:
        model = running.service.champion._current
        assert model is not None
        for frame in make_frames(4):
            socket.send_bytes(png(frame))
        assert socket.receive_json()["type"] == "ready"
        assert model.num_users == 1
    wait_for(lambda: model.num_users == 0 and not running.service.streams)
    assert running.service.scheduler.num_waiting == 0


def test_no_more_is_read_than_may_wait(
    serve: Callable[..., Any],
    make_frames: Callable[..., Iterator[ByteArray]],
    wait_for: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve(max_pending_frames=2)
    service: Service = running.service
    go = threading.Event()
    service.scheduler.open_lane().submit(lambda: go.wait(30))  # the only worker
    decoded = []
    decode = "deploy.service.streams.decode_picture"
    from deploy.service.pictures import decode_picture

    monkeypatch.setattr(
        decode, lambda content, **limits: decoded.append(1) or decode_picture(content, **limits)
    )
    with running.stream() as socket:
        socket.receive_json()
        for frame in make_frames(6):
            socket.send_bytes(png(frame))
        wait_for(lambda: service.scheduler.num_waiting == 2)
        assert len(decoded) == 2
        go.set()
        socket.send_json({"type": "end"})
        assert until_end(socket)[-1]["num_frames"] == 6


def test_streams_share_the_network_fairly(
    serve: Callable[..., Any],
    make_frames: Callable[..., Iterator[ByteArray]],
    wait_for: Callable[..., Any],
) -> None:
    running = serve()
    frames = [png(frame) for frame in make_frames(8)]
    arrivals: list[int] = []
    go = threading.Event()
    running.service.scheduler.open_lane().submit(lambda: go.wait(30))  # until all frames of all streams wait

    def watch(number: int) -> None:
        with running.stream() as socket:
            socket.receive_json()
            for frame in frames:
                socket.send_bytes(frame)
            for _ in range(len(frames) - LOOKAHEAD):
                assert socket.receive_json()["type"] == "detections"
                arrivals.append(number)

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: running.service.scheduler.num_waiting == 3 * len(frames))
    go.set()
    for thread in threads:
        thread.join(timeout=60)
    places = [[place for place, who in enumerate(arrivals) if who == number] for number in range(3)]
    assert [len(of_stream) for of_stream in places] == [6, 6, 6]
    assert max(of_stream[0] for of_stream in places) < min(of_stream[-1] for of_stream in places)


def test_when_the_service_ends_a_camera_is_told_and_flushed(
    serve: Callable[..., Any], make_frames: Callable[..., Iterator[ByteArray]]
) -> None:
    running = serve(drain_s=2.0)
    with running.stream() as socket:
        socket.receive_json()
        for frame in make_frames(1):
            socket.send_bytes(png(frame))
        draining = running.client.portal.start_task_soon(running.service.drain)
        message = socket.receive_json()
        assert (message["type"], 0 < message["seconds"] <= 2) == ("draining", True)
        assert running.client.get("/readyz").status_code == 503
        *found, end = until_end(socket)
        assert [message["frame_index"] for message in found] == [0]
        assert end == {"type": "end", "num_frames": 1, "reason": "draining"}
        assert closed_with(socket) == 1012
        draining.result(timeout=30)
    assert running.denied_stream().status_code == 503
