"""The application: its routes, and what a client is told when something fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from deploy.service.answers import (
    ErrorAnswer,
    HealthAnswer,
    ModelAnswer,
    ReadyAnswer,
    first_fault,
)
from deploy.service.api_page import api_page
from deploy.service.champion import NotReadyError
from deploy.service.gate import RETRY_AFTER_S, Gate
from deploy.service.job_queue import DrainingError, QueueFullError
from deploy.service.metrics import CONTENT_TYPE
from deploy.service.page import PAGE_POLICY, watch_page
from deploy.service.service import Service
from deploy.service.streams import StreamSession
from deploy.service.uploads import UploadTooLargeError
from deploy.service.video_routes import add_videos
from lstfe.errors import UserError


def build_app(service: Service) -> FastAPI:
    """Build the application around a service; starting and ending the app starts and ends the service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(service.stop)

    app = FastAPI(
        title="LSTFE-Net",
        description="Small objects in video: videos and live streams in, detections out.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        responses={
            status: {"model": ErrorAnswer, "description": text}
            for status, text in (
                (401, "No valid token."),
                (408, "Too slow."),
                (503, "Not ready, or draining."),
            )
        },
    )
    app.state.service = service
    app.add_middleware(Gate, service=service)
    app.add_exception_handler(HTTPException, _on_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(UserError, _on_user_error)  # type: ignore[arg-type]
    add_videos(app, service)
    _add_streams(app, service)
    _add_health(app, service)
    _add_pages(app, service)
    return app


# ------------------------------------------------------------------------------------------------- streams


def _add_streams(app: FastAPI, service: Service) -> None:
    @app.websocket("/v1/streams")
    async def stream(websocket: WebSocket) -> None:
        """Serve one camera; deploy/service/streams.py has the messages."""
        try:
            service.require_ready()
        except NotReadyError as error:
            await _deny(websocket, 503, str(error))
            return
        if len(service.streams) >= service.settings.max_streams:
            await _deny(websocket, 429, f"{len(service.streams)} streams are open already; try again later")
            return
        session = StreamSession(
            websocket,
            service.settings,
            champion=service.champion,
            scheduler=service.scheduler,
            metrics=service.metrics,
        )
        service.streams.add(session)
        try:
            await session.run()
        finally:
            service.streams.discard(session)


async def _deny(websocket: WebSocket, status: int, detail: str) -> None:
    answer = JSONResponse({"detail": detail}, status, {"Retry-After": str(RETRY_AFTER_S)})
    await websocket.receive()  # the opening itself, before which nothing may be answered
    await websocket.send_denial_response(answer)


# ---------------------------------------------------------------------------------------- health and pages


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_model=HealthAnswer)
    async def healthz() -> HealthAnswer:
        """Answer as long as the process is alive."""
        return HealthAnswer(status="alive")

    @app.get(
        "/readyz", response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer, "description": "No."}}
    )
    async def readyz(response: Response) -> ReadyAnswer:
        """Say whether new work is taken; 503 while the model is loaded and while the service ends."""
        status, name = service.status, service.champion.name
        if status != "ready":
            response.status_code = 503
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return ReadyAnswer(
            status=status,
            model=None if name is None else ModelAnswer.model_validate(name, from_attributes=True),
            versions_in_use=service.champion.versions_in_use,
            fault=service.champion.fault,
            backend=service.settings.backend,
            queued_jobs=service.jobs.num_waiting,
            running_jobs=service.jobs.num_running,
            active_streams=len(service.streams),
            needs_token=service.access.needs_token,
        )

    @app.get(
        "/metrics",
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={200: {"content": {"text/plain": {}}}},
        response_class=Response,
    )
    def metrics() -> Response:
        """Give Prometheus what it asks for."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_pages(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def home() -> HTMLResponse:
        """Give the page to drop a video on."""
        return HTMLResponse(watch_page(), headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """Describe the routes."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
        return HTMLResponse(api_page(app.openapi()), headers={"Content-Security-Policy": policy})


# -------------------------------------------------------------------------------------------------- errors


async def _on_http_error(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


async def _on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"detail": first_fault(error.errors())}, 422)


async def _on_user_error(request: Request, error: UserError) -> JSONResponse:
    retry = {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, QueueFullError):
        return JSONResponse({"detail": str(error)}, 429, retry)
    if isinstance(error, (NotReadyError, DrainingError)):
        return JSONResponse({"detail": str(error)}, 503, retry)
    return JSONResponse({"detail": str(error)}, 413 if isinstance(error, UploadTooLargeError) else 422)
