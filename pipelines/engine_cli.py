"""`lstfe engine`: TensorRT engines of a bundle, built and verified on the machine that runs them."""

# What a command needs is imported when it runs, as in cli.py.

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

engine_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="TensorRT engines of a bundle; docs/tensorrt.md."
)
BundleArgument = Annotated[Path, typer.Argument(help="The deployed bundle.")]
Precision = Literal["fp16", "fp32", "int8", "fp8"]


@engine_app.command("build")
def build_engine(
    bundle: BundleArgument,
    precision: Annotated[Precision, typer.Option(help="fp16, fp32, int8 or fp8.")] = "fp16",
    image_size: Annotated[
        list[str] | None,
        typer.Option(help="HEIGHTxWIDTH of the videos, as often as there are sizes; one alone is fastest."),
    ] = None,
    plugin: Annotated[
        Path | None, typer.Option(help="The plugin's library; compiled here unless given.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Prepared data set that int8 and fp8 take their ranges from.")
    ] = None,
) -> None:
    """Build a bundle's engines for this machine's GPU and TensorRT; says what is missing."""
    from deploy.bundle import open_bundle
    from deploy.tensorrt.build import build_engines
    from pipelines.image_sizes import read_image_size

    sizes = [read_image_size(text) for text in image_size or ()]
    directory = build_engines(
        open_bundle(bundle), precision=precision, frame_sizes=sizes, plugin=plugin, calibration=calibration
    )
    print(f"engines -> {directory}")


@engine_app.command("verify")
def verify_engine(
    bundle: BundleArgument,
    data: Annotated[Path, typer.Option(help="A prepared data set, data/prepared/NAME.")],
    backend: Annotated[Literal["tensorrt", "onnx"], typer.Option(help="onnx needs no GPU.")] = "tensorrt",
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="With onnx: of the graphs that engines are built from; the bundle's own unless given."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; evaluate.split unless given.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Real frames; export.parity_frames unless given.")
    ] = None,
) -> None:
    """Compare engines with PyTorch on real frames, graph by graph and in the AP; exit code 1 past the limits."""
    from deploy.bundle import open_bundle
    from deploy.tensorrt.parity import parity_rows, verify_engines
    from pipelines.tables import text_table

    found = verify_engines(
        open_bundle(bundle), data, backend=backend, precision=precision, split=split, num_frames=frames
    )
    print(text_table(("graph", "absolute", "relative", "unmatched"), parity_rows(found.report)))
    for name, figures in found.report["ap"].items():
        print(f"{name}: {figures['torch']:.4f} with PyTorch, {figures[backend]:.4f} with {backend}")
    print(f"{found.report['num_frames']} frames -> {found.path}")
    for fault in found.faults:
        print(f"fault: {fault}")
    if found.faults:
        raise typer.Exit(1)


@engine_app.command("triton")
def triton_repository(
    bundle: BundleArgument,
    destination: Annotated[Path, typer.Argument(help="Folder of Triton's models; the model is added to it.")],
    backend: Annotated[Literal["tensorrt", "onnx"], typer.Option(help="What runs the network.")] = "tensorrt",
    streams: Annotated[int, typer.Option(min=1, help="Cameras at a time.")] = 8,
    instances: Annotated[int, typer.Option(min=1, help="Model instances; streams are dealt out.")] = 1,
    idle_seconds: Annotated[
        int, typer.Option(min=1, help="Streams that send nothing for so long are ended.")
    ] = 60,
) -> None:
    """Write a model for NVIDIA Triton: one sequence a camera, the stream's state kept by the server."""
    from deploy.bundle import open_bundle
    from deploy.triton.repository import write_triton_model

    path = write_triton_model(
        open_bundle(bundle),
        destination,
        backend=backend,
        num_streams=streams,
        num_instances=instances,
        idle_seconds=idle_seconds,
    )
    print(f"Triton model -> {path}")
