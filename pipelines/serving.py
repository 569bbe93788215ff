"""`lstfe serve`: the options, and which model is meant when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    bundle: Annotated[
        Path | None,
        typer.Option(help="Serve this bundle; without it the project's champion, also the next one."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="8700; 0 takes a free one and prints it.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Bearer tokens, one a line; or LSTFE_SERVE_TOKENS.")
    ] = None,
    no_auth: Annotated[
        bool | None, typer.Option("--no-auth", help="Listen beyond this machine without a token.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="What runs the network; onnx.")] = None,
    workers: Annotated[int | None, typer.Option(help="Frames in the network at once; one a core.")] = None,
    threads_per_worker: Annotated[int | None, typer.Option(help="Threads for one frame; 1.")] = None,
    spool: Annotated[
        Path | None, typer.Option(help="Folder of uploads and results, the service's own.")
    ] = None,
    max_upload_bytes: Annotated[int | None, typer.Option(help="Of one request; 512 MiB.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Of one video; 20000.")] = None,
    max_duration_s: Annotated[float | None, typer.Option(help="Of one video; 1800.")] = None,
    max_queued_jobs: Annotated[int | None, typer.Option(help="Jobs that may wait; 64.")] = None,
    max_streams: Annotated[int | None, typer.Option(help="Open streams; 16.")] = None,
    request_timeout_s: Annotated[float | None, typer.Option(help="Of any request but an upload; 30.")] = None,
    drain_s: Annotated[float | None, typer.Option(help="For running work after SIGTERM; 30.")] = None,
    allow_private_urls: Annotated[
        bool | None, typer.Option("--allow-private-urls", help="Fetch from private addresses too.")
    ] = None,
) -> None:
    """Serve detections over HTTP: videos, live streams, a page; docs/serving.md has all settings."""
    from deploy.service.server import serve as serve_until_signal
    from deploy.service.settings import load_settings

    settings = load_settings(
        bundle=bundle,
        host=host,
        port=port,
        token_file=token_file,
        no_auth=no_auth,
        backend=backend,
        workers=workers,
        threads_per_worker=threads_per_worker,
        spool=spool,
        max_upload_bytes=max_upload_bytes,
        max_frames=max_frames,
        max_duration_s=max_duration_s,
        max_queued_jobs=max_queued_jobs,
        max_streams=max_streams,
        request_timeout_s=request_timeout_s,
        drain_s=drain_s,
        allow_private_urls=allow_private_urls,
        pointer=_champion(bundle),
    )
    serve_until_signal(settings)


def _champion(bundle: Path | None) -> Path | None:
    """Return the project's pointer, unless a bundle or another pointer is named."""
    import os

    from pipelines.paths import champion_pointer, main_root

    named = bundle or os.environ.get("LSTFE_SERVE_BUNDLE") or os.environ.get("LSTFE_SERVE_POINTER")
    return None if named else champion_pointer(main_root())
