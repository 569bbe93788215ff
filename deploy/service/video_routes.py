"""The routes /v1/videos: jobs taken, asked for, read and cancelled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from deploy.service.answers import (
    DetectionAnswer,
    ErrorAnswer,
    JobAnswer,
    UrlsRequest,
    first_fault,
    job_answer,
)
from deploy.service.fetching import check_url, name_of
from deploy.service.gate import CLIENT_KEY, RETRY_AFTER_S
from deploy.service.job_queue import JobQueue
from deploy.service.jobs import Job, JobVideo, label_of
from deploy.service.service import Service
from deploy.service.uploads import UploadTooLargeError, receive_files

_PIECE_BYTES = 1024 * 1024
_MAX_JSON_BYTES = 256 * 1024
_NEVER = 2**53  # whatever is larger is no place in a file

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="As `POST /v1/videos` gave it.")]
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {"schema": UrlsRequest.model_json_schema()},
        },
    }
}


def add_videos(app: FastAPI, service: Service) -> None:
    """Add them to the application."""
    needs_token = [Depends(HTTPBearer(auto_error=False))]
    unknown: dict[int | str, dict[str, Any]] = {
        404: {"model": ErrorAnswer, "description": "No such job."},
        422: {"model": ErrorAnswer, "description": "Not an id, or another parameter is wrong."},
    }

    @app.post(
        "/v1/videos",
        status_code=202,
        response_model=JobAnswer,
        dependencies=needs_token,
        openapi_extra=_UPLOAD,
        responses={
            413: {"model": ErrorAnswer, "description": "Too large, or too many videos."},
            415: {"model": ErrorAnswer, "description": "Neither form data nor JSON."},
            422: {
                "model": ErrorAnswer,
                "description": "Malformed, without a video, or not fetched from.",
            },
            429: {
                "model": ErrorAnswer,
                "description": "The queue is full; Retry-After says when to come back.",
            },
        },
    )
    async def submit(request: Request, response: Response) -> JobAnswer:
        """Detect on videos: files as form data (`file`, more than once if you like), or a JSON list of addresses."""
        service.require_ready()
        job = await anyio.to_thread.run_sync(service.jobs.reserve, request.scope[CLIENT_KEY])
        try:
            job.videos.extend(await _read_videos(request, job, service))
        except BaseException:
            service.jobs.discard(job)
            raise
        service.jobs.submit(job)
        response.headers["Location"] = f"/v1/videos/{job.id}"
        return job_answer(job, queue_position=service.jobs.place_of(job))

    @app.get("/v1/videos/{job_id}", response_model=JobAnswer, dependencies=needs_token, responses=unknown)
    async def status(job_id: JobId, request: Request) -> JobAnswer:
        """Say how far a job is."""
        job = _find(service.jobs, job_id, request)
        return job_answer(job, queue_position=service.jobs.place_of(job))

    @app.get(
        "/v1/videos/{job_id}/detections",
        response_model=list[DetectionAnswer],
        dependencies=needs_token,
        responses=unknown
        | {
            200: {
                "description": "Records as `lstfe detect` writes them; header Next-Cursor says where they end."
            },
            409: {
                "model": ErrorAnswer,
                "description": "Not finished, or failed; `partial` gives what there is.",
            },
        },
    )
    async def detections(
        job_id: JobId,
        request: Request,
        partial: Annotated[
            bool, Query(description="Give what there is, also of a job that is not done.")
        ] = False,
        cursor: Annotated[
            int, Query(ge=0, le=_NEVER, description="Begin where an answer's Next-Cursor ended.")
        ] = 0,
    ) -> Response:
        """Give a job's detections in COCO-VID form."""
        job = _find(service.jobs, job_id, request)
        if job.state != "done" and not partial:
            raise HTTPException(409, _why_not(job), {"Retry-After": str(RETRY_AFTER_S)})
        end = job.num_bytes
        pieces = await anyio.to_thread.run_sync(_open_detections, job, cursor, end)
        job.was_read = job.was_read or job.is_finished
        headers = {"Next-Cursor": str(end), "Model-Version": job.model.version if job.model else ""}
        return StreamingResponse(pieces, media_type="application/json", headers=headers)

    @app.delete("/v1/videos/{job_id}", status_code=204, dependencies=needs_token, responses=unknown)
    async def cancel(job_id: JobId, request: Request) -> None:
        """Cancel a job, if it still runs, and forget its results."""
        job = _find(service.jobs, job_id, request)
        await anyio.to_thread.run_sync(service.jobs.delete, job)


async def _read_videos(request: Request, job: Job, service: Service) -> list[JobVideo]:
    settings = service.settings
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    limit = settings.max_upload_bytes if kind == "multipart/form-data" else _MAX_JSON_BYTES
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise UploadTooLargeError(f"{length} bytes, expected at most {limit}")
    names: list[str] = []
    videos = []
    if kind == "multipart/form-data":
        files = await receive_files(
            request.stream(), content_type, job.folder, max_bytes=limit, max_files=settings.max_videos_per_job
        )
        for file in files:
            names.append(label_of(file.name, names))
            videos.append(JobVideo(names[-1], path=file.path))
        return videos
    if kind != "application/json":
        raise HTTPException(
            415, "expected multipart/form-data with a `file`, or application/json with `urls`"
        )
    try:
        urls = UrlsRequest.model_validate_json(await _read_json(request)).urls
    except ValidationError as error:
        raise HTTPException(422, first_fault(error.errors())) from None
    if len(urls) > settings.max_videos_per_job:
        raise UploadTooLargeError(f"{len(urls)} addresses, expected at most {settings.max_videos_per_job}")
    for url in urls:
        check_url(url, allow_private=settings.allow_private_urls)
        names.append(label_of(name_of(url) + ".", names))
        videos.append(JobVideo(names[-1], url=url))
    return videos


async def _read_json(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_JSON_BYTES:
            raise UploadTooLargeError(f"more than {_MAX_JSON_BYTES} bytes of JSON")
    return bytes(body)


def _find(jobs: JobQueue, job_id: str, request: Request) -> Job:
    job = jobs.find(job_id, request.scope[CLIENT_KEY])
    if job is None:
        raise HTTPException(404, "no such job: cancelled, forgotten with time, or never here")
    return job


def _why_not(job: Job) -> str:
    if not job.is_finished:
        return f"the job is {job.state}; ask again, or with partial=true for what there is"
    reasons = [f"{video.error}" for video in job.videos if video.error]
    return f"the job {job.state}: {reasons[0] if reasons else 'no reason'}; partial=true gives what there is"


def _open_detections(job: Job, cursor: int, end: int) -> Iterator[bytes]:
    """Return the records from byte `cursor` to `end` as pieces of one JSON list; the file is open from now on."""
    if cursor > end:
        raise HTTPException(422, f"cursor {cursor}: past the end, {end}")
    if end == cursor:
        return iter((b"[]\n",))
    try:
        file = job.detections_path.open("rb")
    except OSError:
        raise HTTPException(404, "no such job: cancelled, forgotten with time, or never here") from None
    if cursor and os.pread(file.fileno(), 1, cursor - 1) != b"\n":
        file.close()
        raise HTTPException(422, f"cursor {cursor}: not one that an answer gave")
    return _pieces(file, cursor, end)


def _pieces(file: Any, cursor: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(cursor)
        yield b"[\n"
        left = end - cursor - 1  # the last line's own end is the list's
        while left > 0:
            piece = file.read(min(_PIECE_BYTES, left))
            left -= len(piece)
            yield piece.replace(b"\n", b",\n")
        yield b"\n]\n"
