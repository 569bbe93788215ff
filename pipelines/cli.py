"""LSTFE-Net: small objects in video, from raw footage to a deployed streaming detector."""

# What a command needs is imported when it runs, so that `lstfe --help` is there at once.

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from lstfe.errors import UserError
from pipelines.command import run_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Bring data in.")
import_app = typer.Typer(no_args_is_help=True, help="Import a data set into data/raw.")
app.add_typer(data_app, name="data")
data_app.add_typer(import_app, name="import")


def main() -> None:
    """Entry point of the console script."""
    run_command(app)


@app.command()
def demo() -> None:
    """Bring every stage up to date, detect on a test video, and say where to look."""
    from pipelines.demo import run_demo

    print(run_demo(_enter_project()))


@app.command()
def reproduce() -> None:
    """Bring every stage up to date with the Prefect flow; a second run does nothing and says so."""
    from lstfe.params import load_config
    from pipelines.checkout import settle_git
    from pipelines.demo import reproduce_stages
    from pipelines.paths import PARAMS

    root = _enter_project()
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

    _enter_project()
    require_trained()
    print(compared_runs())


@app.command()
def compare(
    method: Annotated[str, typer.Option(help="faster_rcnn, selsa, rdn or stsn.")] = "faster_rcnn",
) -> None:
    """Train a comparator with the current data and budget in a copy, and show both."""
    from pipelines.compare import compared_runs, require_trained, train_comparator

    root = _enter_project()
    require_trained()
    train_comparator(method, root=root, report=print)
    print(compared_runs())


@app.command()
def detect(
    source: Annotated[str, typer.Argument(help="Video file, folder of frames, or webcam/RTSP address.")],
    bundle: Annotated[Path, typer.Option(help="The deployed bundle.")] = Path("artifacts/deployed"),
    backend: Annotated[Literal["onnx", "torch"], typer.Option(help="What runs the network.")] = "onnx",
    output: Annotated[Path, typer.Option(help="Where annotated.mp4 and detections.json go.")] = Path(
        "detected"
    ),
) -> None:
    """Detect objects in a video; Ctrl-C ends early and keeps what was found."""
    from deploy.detect import detect_source

    print(detect_source(source, bundle, backend=backend, output_dir=output).message)


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


@import_app.command("fl-drones")
def import_fl_drones(
    source: Annotated[
        Path, typer.Argument(help="Folder with the FL-Drones texts, perhaps videos and splits.")
    ],
    destination: Annotated[Path, typer.Argument(help="The new raw data set, data/raw/NAME.")],
    videos: Annotated[
        Path | None, typer.Option(help="Folder of the videos, where they lie elsewhere.")
    ] = None,
    split: Annotated[str, typer.Option(help="half, none, by-list:DIR, or auto.")] = "auto",
    link: Annotated[bool, typer.Option(help="Hard-link the videos instead of copying.")] = False,
) -> None:
    """Turn FL-Drones texts and videos into a raw data set."""
    from lstfe.data.importers.fl_drones import import_fl_drones as import_data_set

    report = import_data_set(source, destination, videos=videos, split=split, link=link)
    print(
        f"{destination}: {report['boxes_clipped']} boxes clipped to the frame, {report['boxes_dropped']} dropped"
    )
    print(f"train on it with: dvc exp run -S data.name={destination.name}")


def _enter_project() -> Path:
    """Make the project's folder the current one: DVC, Prefect and all paths count from there."""
    from pipelines.paths import find_project

    root = find_project()
    os.chdir(root)
    return root


if __name__ == "__main__":
    main()
