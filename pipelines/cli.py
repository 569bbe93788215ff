"""LSTFE-Net: small objects in video, from raw footage to a deployed streaming detector."""

# What a command needs is imported when it runs, so that `lstfe --help` is there at once; drawing boxes around it
# would take longer than all the rest.

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lstfe.errors import UserError
from pipelines.command import run_command
from pipelines.engine_cli import engine_app
from pipelines.ops_cli import ops_app
from pipelines.paths import enter_project
from pipelines.servers_cli import servers_app
from pipelines.serving import serve

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
)
data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Bring data in, check it and look at it."
)
ops_app.add_typer(servers_app)
app.add_typer(data_app, name="data")
app.add_typer(engine_app, name="engine")
app.add_typer(ops_app, name="ops")


def main() -> None:
    """Entry point of the console script."""
    run_command(app)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Say the version, and end.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"lstfe {installed('lstfe')}")
        raise typer.Exit


@app.command()
def demo() -> None:
    """Bring every stage up to date, detect on a test video, and say where to look."""
    from pipelines.demo import run_demo

    print(run_demo(enter_project()))


@app.command()
def reproduce() -> None:
    """Bring every stage up to date with the Prefect flow; a second run does nothing and says so."""
    from lstfe.params import load_config
    from pipelines.checkout import settle_git
    from pipelines.demo import reproduce_stages
    from pipelines.paths import PARAMS

    root = enter_project()
    load_config(PARAMS)
    note = settle_git(root)
    ran = reproduce_stages(root)
    for stage, did_run in ran.items():
        print(f"{stage:10} {'ran' if did_run else 'up to date'}")
    if not any(ran.values()):
        print("nothing to do: all stages were up to date")
    if note:
        print(note)


@app.command()
def runs() -> None:
    """Compare the newest run of each method that had the data and the budget of the current one."""
    from pipelines.compare import compared_runs, require_trained

    enter_project()
    require_trained()
    print(compared_runs())


@app.command()
def compare(
    method: Annotated[str, typer.Option(help="faster_rcnn, selsa, rdn or stsn.")] = "faster_rcnn",
) -> None:
    """Train a comparator with the current data and budget in a copy, and show both."""
    from pipelines.compare import compared_runs, require_trained, train_comparator

    root = enter_project()
    require_trained()
    train_comparator(method, root=root, report=print)
    print(compared_runs())


@app.command()
def detect(
    source: Annotated[str, typer.Argument(help="Video file, folder of frames, or webcam/RTSP address.")],
    bundle: Annotated[Path, typer.Option(help="The deployed bundle.")] = Path("artifacts/deployed"),
    backend: Annotated[
        Literal["onnx", "torch", "tensorrt"], typer.Option(help="What runs the network.")
    ] = "onnx",
    output: Annotated[Path, typer.Option(help="Where annotated.mp4 and detections.json go.")] = Path(
        "detected"
    ),
) -> None:
    """Detect objects in a video; Ctrl-C ends early and keeps what was found."""
    from deploy.detect import detect_source

    print(detect_source(source, bundle, backend=backend, output_dir=output).message)


@app.command("detect-all")
def detect_all(
    sources: Annotated[
        list[str],
        typer.Argument(help="Videos: files, folders, patterns, fsspec addresses (s3://bucket/night)."),
    ],
    bundle: Annotated[Path, typer.Option(help="The deployed bundle.")] = Path("artifacts/deployed"),
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("detected"),
    backend: Annotated[
        Literal["onnx", "torch", "tensorrt"], typer.Option(help="What runs the network.")
    ] = "onnx",
    runner: Annotated[
        Literal["processes", "threads", "dask", "ray"], typer.Option(help="What runs the tasks.")
    ] = "processes",
    workers: Annotated[int, typer.Option(min=1, help="Videos at a time.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each detector.")] = 1,
    address: Annotated[str | None, typer.Option(help="A Dask or Ray cluster that is there already.")] = None,
) -> None:
    """Detect on many videos in parallel; a second run does only what is new or changed."""
    from pipelines.detecting import detect_all as run

    print(
        run(
            sources,
            bundle,
            output,
            backend=backend,
            runner=runner,
            num_workers=workers,
            num_threads=threads,
            address=address,
        )
    )


app.command()(serve)


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="The deployed bundle.")],
    backend: Annotated[
        str, typer.Option(help="torch, onnx and tensorrt, by commas.")
    ] = "torch,onnx,tensorrt",
    source: Annotated[
        str | None, typer.Option(help="Video or folder of frames; a moving texture unless given.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames in steady state.")] = 200,
    output: Annotated[Path | None, typer.Option(help="Where the figures go, as JSON.")] = None,
) -> None:
    """Measure latency, throughput, memory and cold start of a bundle's backends side by side."""
    from pipelines.benching import bench_bundle

    bench_bundle(bundle, backend, source, frames, output)


@app.command()
def score(
    ground_truth: Annotated[Path, typer.Option(help="COCO-VID or COCO annotations, JSON.")],
    detections: Annotated[
        Path, typer.Option(help="What `lstfe detect` writes, or a COCO list of results, JSON.")
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="coco, voc07, voc07_inclusive, mega_vid, ilsvrc or all; may be given more than once. "
            "All unless given."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the figures go, as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where the report goes: one HTML file.")] = None,
    resamples: Annotated[
        int | None,
        typer.Option(min=0, help="Resamples of the videos for 95 % intervals; 1000 for a report, else 0."),
    ] = None,
    frame_stride: Annotated[int, typer.Option(min=1, help="Score every n-th frame of each video.")] = 1,
) -> None:
    """Score any detector's output by the field's protocols, side by side; docs/evaluation.md."""
    from pipelines.scoring import EVERY, score_files

    print(
        score_files(
            ground_truth,
            detections,
            protocol or [EVERY],
            output=output,
            report=report,
            resamples=resamples,
            frame_stride=frame_stride,
        )
    )


@app.command()
def profile(
    output: Annotated[Path, typer.Option(help="The trace.")] = Path("artifacts/profiled/trace.json"),
    updates: Annotated[int, typer.Option(min=1, help="Updates that the trace shows.")] = 3,
    still: Annotated[bool, typer.Option("--still", help="Of the phase of still clips.")] = False,
) -> None:
    """Train a few updates and write where their time goes, as a chrome trace; nothing else is kept."""
    from pipelines.profiling import profile_current

    enter_project()
    print(profile_current(output, updates=updates, still=still))


@app.command()
def doctor() -> None:
    """Say what this machine has, and what each missing part would give."""
    from pipelines.doctor import examine, is_fit, report
    from pipelines.paths import find_project

    try:
        root = find_project()
    except UserError:
        root = None
    findings = examine(root)
    print(report(findings))
    if not is_fit(findings):
        raise typer.Exit(1)


@data_app.command("import")
def import_data(
    data_format: Annotated[
        Literal["fl-drones", "imagenet-vid", "coco-video", "mot", "cvat", "voc"],
        typer.Argument(metavar="FORMAT", help="fl-drones, imagenet-vid, coco-video, mot, cvat or voc."),
    ],
    source: Annotated[Path, typer.Argument(help="The data as received; docs/data.md has the layouts.")],
    destination: Annotated[Path, typer.Argument(help="The new raw data set, data/raw/NAME.")],
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos or picture folders, where they lie elsewhere.")
    ] = None,
    split: Annotated[str, typer.Option(help="auto, half, folds:K, folds:K:I, by-list:DIR or none.")] = "auto",
    annotations_only: Annotated[bool, typer.Option("--annotations-only", help="Take no videos.")] = False,
    image_size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH, for annotations alone that do not say it.")
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Name of the objects, for formats that have none.")
    ] = None,
    link: Annotated[bool, typer.Option("--link/--copy", help="Hard-link the videos or copy them.")] = False,
) -> None:
    """Turn annotated videos of a known format into a raw data set."""
    from pipelines.importing import import_data_set

    print(
        import_data_set(
            data_format,
            source,
            destination,
            videos=videos,
            split=split,
            annotations_only=annotations_only,
            image_size=image_size,
            category=category,
            link=link,
        )
    )


@data_app.command("check")
def check_data(
    raw: Annotated[Path, typer.Argument(help="A raw data set, data/raw/NAME.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the report; artifacts/checked/NAME of the project unless given."),
    ] = None,
) -> None:
    """Find what is wrong with a raw data set; exit code 1 where something must be mended."""
    from pipelines.checking import check_raw

    message, is_well = check_raw(raw, output)
    print(message)
    if not is_well:
        raise typer.Exit(1)


@data_app.command("show")
def show_data(
    source: Annotated[Path, typer.Argument(help="A raw data set, data/raw/NAME.")],
    video: Annotated[
        str | None, typer.Option(help="Name of the video; the one with the smallest objects if not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the two files go; artifacts/shown/NAME if not given.")
    ] = None,
) -> None:
    """Draw a video's annotations: a preview video, and a contact sheet of its smallest objects."""
    from lstfe.data.show import show_video
    from pipelines.paths import SHOWN

    print(show_video(source, video, output or SHOWN / source.resolve().name).message)


if __name__ == "__main__":
    main()
