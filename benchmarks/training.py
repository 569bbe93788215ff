"""Speed of training: `python -m benchmarks.training` (any machine), `python -m benchmarks.training gpu` (CUDA).

The first holds the whole training (loader, logging, checkpoints) against its bare passes on the same clips. The second
holds the tuned path against the recipe of the published code: float32, one clip a pass, no compilation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from benchmarks.machine import describe_machine
from lstfe.config import BackboneConfig, Config, ModelConfig, PrepareConfig, TrainConfig
from lstfe.data.prepare import prepare_data_set
from lstfe.data.rendering.renderer import render_data_set
from lstfe.data.sampling import clip_layout
from lstfe.data.transforms import collate
from lstfe.model.detector import LSTFENet
from lstfe.params import load_config
from lstfe.training.determinism import reproducible_cpu
from lstfe.training.distributed import World
from lstfe.training.feed import Feed
from lstfe.training.loop import Log, train
from lstfe.training.optimizer import build_optimizer
from lstfe.training.speed import peak_flops
from lstfe.training.step import Stepper
from lstfe.types import Clip, ClipBatch, Targets
from pipelines.tables import markdown_table

WARMUP = 5
"""Updates before the clock starts."""


def main() -> None:
    """Print the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("whole", "compile", "gpu"), default="whole")
    parser.add_argument("--updates", type=int, default=20, help="updates that one repeat times")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(describe_machine("torch", "torchvision"), end="\n\n")
    if arguments.what == "gpu":
        print(on_a_gpu(arguments.updates))
        return
    config = load_config("params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        prepared = rendered(config, Path(folder))
        if arguments.what == "compile":
            print(eager_against_compiled(config, prepared, arguments.updates, arguments.repeats))
            return
        for still in (False, True):
            print(against_bare_passes(config, prepared, arguments.updates, arguments.repeats, still=still))


def rendered(config: Config, folder: Path) -> Path:
    """Render and prepare a few videos as `params.yaml` describes them."""
    render = replace(config.render, num_train_videos=4, num_val_videos=1, num_test_videos=1)
    render_data_set(render, folder / "raw")
    prepare_data_set(folder / "raw", folder / "prepared", PrepareConfig())
    return folder / "prepared"


# --------------------------------------------------------------------------------- the whole and the bare


def against_bare_passes(config: Config, prepared: Path, updates: int, repeats: int, *, still: bool) -> str:
    """Return images a second of the whole training and of its bare passes, and their ratio, medians of `repeats`."""
    total = WARMUP + updates
    recipe = replace(
        config.train,
        iterations=total,
        still_iterations=total if still else 0,
        log_every=WARMUP,
        checkpoint_every=max(WARMUP, updates // 2 // WARMUP * WARMUP),
        validation_frames=0,
        colour_jitter=0.0,
    )
    config = replace(config, train=recipe)
    batches = first_batches(config, prepared, updates)
    pairs = [(whole(config, prepared), bare(config, batches)) for _ in range(repeats)]
    ratios = sorted(trained.images_per_second / plain for trained, plain in pairs)
    rows = [
        ["the whole training", f"{statistics.median(trained.images_per_second for trained, _ in pairs):.1f}"],
        ["its bare passes", f"{statistics.median(plain for _, plain in pairs):.1f}"],
    ]
    waits = statistics.median(trained.data_wait for trained, _ in pairs)
    kind = "still clips" if still else "whole clips"
    return (
        f"{markdown_table([f'{kind}, {torch.get_num_threads()} threads', 'images/s'], rows)}\n\n"
        f"ratio {statistics.median(ratios):.3f} (median of {repeats}; {ratios[0]:.3f} to {ratios[-1]:.3f}); "
        f"waiting for data {waits:.1%} of the time.\n"
    )


@dataclass(frozen=True, slots=True)
class WholeTraining:
    """Speed of a whole training, past its warm-up."""

    images_per_second: float
    data_wait: float
    """Share of the time."""


def whole(config: Config, prepared: Path) -> WholeTraining:
    """Train as the stage does, timed from the first line of metrics to the last, checkpoints in between."""
    times: list[float] = []
    lines: list[dict[str, float]] = []

    def log(metrics: dict[str, float], iteration: int) -> None:
        times.append(time.perf_counter())
        lines.append(metrics)

    train_in_full(config, prepared, log)
    num_images = (config.train.iterations - WARMUP) * config.train.batch_size * frames_per_clip(config)
    wait = statistics.mean(line["data_wait_fraction"] for line in lines[1:])
    return WholeTraining(num_images / (times[-1] - times[0]), wait)


def frames_per_clip(config: Config) -> int:
    """Return the frames of a clip, all of which pass through the backbone."""
    if config.train.still_iterations:
        return 1
    return 1 + config.sampling.num_short_term + config.sampling.num_candidates


def first_batches(config: Config, prepared: Path, count: int) -> list[list[Clip]]:
    """Return the clips of the first updates."""
    batches: list[list[Clip]] = []
    original = Feed.next

    def watched(feed: Feed) -> tuple[list[Clip], float]:
        clips, waited = original(feed)
        # Copied: the loader's memory is limited.
        batches.append([replace(clip, frames=clip.frames.clone()) for clip in clips])
        return clips, waited

    short = replace(config, train=replace(config.train, iterations=count, still_iterations=0, num_workers=0))
    if config.train.still_iterations:
        short = replace(short, train=replace(short.train, still_iterations=count))
    with mock.patch.object(Feed, "next", watched):
        train_in_full(short, prepared, log=lambda metrics, iteration: None)
    return batches


def train_in_full(config: Config, prepared: Path, log: Log) -> None:
    """Train as the stage does; of what it makes nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        train(
            config, prepared_dir=prepared, checkpoint_dir=Path(folder), log=log, validate=None, progress=False
        )


def bare(config: Config, batches: Sequence[list[Clip]]) -> float:
    """Return images a second of forward, backward and optimiser alone, on batches that lie ready."""
    torch.manual_seed(config.train.seed)
    model = LSTFENet(config.model, num_classes=2, pretrained=False).to(memory_format=torch.channels_last)
    if config.train.still_iterations:
        for parameter in model.temporal_parameters():
            parameter.requires_grad_(False)
    optimizer = build_optimizer(model, config.train)
    ready = [collate(clips, config.model) for clips in batches]
    model.train()
    with reproducible_cpu(torch.device("cpu")):
        for batch in ready[:WARMUP]:
            passes(model, batch, optimizer, config.train)
        started = time.perf_counter()
        for batch in ready:
            passes(model, batch, optimizer, config.train)
        seconds = time.perf_counter() - started
    return sum(batch.images.shape[:2].numel() for batch in ready) / seconds


def passes(
    model: LSTFENet, batch: ClipBatch, optimizer: torch.optim.Optimizer, config: TrainConfig
) -> Tensor:
    """Do what no training can do without."""
    losses: dict[str, Tensor] = model(batch)
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.max_gradient_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    optimizer.step()
    return loss


def eager_against_compiled(config: Config, prepared: Path, updates: int, repeats: int) -> str:
    """Return images a second of whole clips with the backbone as it is and compiled, and what compiling takes."""
    recipe = replace(config.train, iterations=updates, still_iterations=0, checkpoint_every=updates)
    config = replace(config, train=replace(recipe, validation_frames=0))
    batches = first_batches(config, prepared, updates)
    rows = []
    for is_compiled in (False, True):
        chosen = replace(config, train=replace(config.train, compile=is_compiled))
        torch.manual_seed(0)
        model = LSTFENet(config.model, num_classes=2, pretrained=False).to(memory_format=torch.channels_last)
        stepper = Stepper(model, chosen, World(), micro_batch=None)
        started = time.perf_counter()
        stepped(stepper, batches[:1])
        first = time.perf_counter() - started
        stepped(stepper, batches[:WARMUP])
        speeds = [stepped(stepper, batches) for _ in range(repeats)]
        name = "compiled" if is_compiled else "eager"
        rows.append([name, f"{statistics.median(speeds):.1f}", f"{first:.1f}"])
    return markdown_table(["backbone", "images/s", "first update, s"], rows)


def stepped(stepper: Stepper, batches: Sequence[list[Clip]]) -> float:
    """Do an update with each batch; return images a second."""
    started = time.perf_counter()
    for iteration, clips in enumerate(batches):
        stepper.step(clips, range(len(clips)), iteration)
    seconds = time.perf_counter() - started
    return sum(len(clip.frames) for clips in batches for clip in clips) / seconds


# ------------------------------------------------------------------------------------------------- GPU


def on_a_gpu(updates: int) -> str:
    """Return images a second, memory and MFU for two backbones at 600x800, batch by batch, eager and tuned."""
    device = World().device
    if device.type != "cuda":
        return "no GPU here: not measured"
    rows = list(gpu_rows(updates, device))
    header = ["backbone", "clips", "path", "images/s", "ms/update", "GPU GB", "MFU", "against eager"]
    return (
        f"{torch.cuda.get_device_name(device)}, 600x800, clips of 7 frames\n\n{markdown_table(header, rows)}"
    )


def gpu_rows(updates: int, device: torch.device) -> Iterator[list[str]]:
    """Yield a row for each backbone, batch and path; what does not fit into the memory says so."""
    for backbone in ("resnet50", "resnet101"):
        for batch_size in (1, 2, 4, 8, 16):
            eager = 0.0
            for path in ("eager", "tuned"):
                measured = or_out_of_memory(gpu_speed, path_config(backbone, batch_size, path), path, updates)
                if measured is None:
                    yield [backbone, str(batch_size), path, "out of memory", "", "", "", ""]
                    continue
                images_per_second, seconds, flops = measured
                eager = eager or images_per_second
                peak = peak_flops(device)
                yield [
                    backbone,
                    str(batch_size),
                    path,
                    f"{images_per_second:.1f}",
                    f"{1000 * seconds:.0f}",
                    f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f}",
                    f"{flops / seconds / peak:.1%}" if peak and flops else "",
                    f"{images_per_second / eager:.2f}",
                ]


def path_config(backbone: str, batch_size: int, path: str) -> Config:
    """Return the configuration of one path."""
    is_tuned = path == "tuned"
    model = ModelConfig(backbone=BackboneConfig(name="resnet50" if backbone == "resnet50" else "resnet101"))
    recipe = TrainConfig(batch_size=batch_size, amp="auto" if is_tuned else "off", compile=is_tuned)
    return Config(model=model, train=recipe)


def gpu_speed(config: Config, path: str, updates: int) -> tuple[float, float, int]:
    """Return images a second, seconds an update, and its operations, on clips of noise."""
    world = World()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    model = LSTFENet(config.model, num_classes=31, pretrained=False)
    for frozen in (model.backbone.conv1, model.backbone.bn1, model.backbone.layer1):
        frozen.requires_grad_(False)  # as with ImageNet's weights
    layout = torch.channels_last if path == "tuned" else torch.contiguous_format
    stepper = Stepper(
        model.to(world.device).to(memory_format=layout),
        config,
        world,
        micro_batch=None if path == "tuned" else 1,
    )
    clips = [noise(seed) for seed in range(config.train.batch_size)]
    for iteration in range(WARMUP):
        stepper.step(clips, range(len(clips)), iteration)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for iteration in range(updates):
        stepper.step(clips, range(len(clips)), WARMUP + iteration)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / updates
    return len(clips) * 7 / seconds, seconds, stepper.flops or 0


def or_out_of_memory(
    work: Callable[[Config, str, int], tuple[float, float, int]], *arguments: object
) -> tuple[float, float, int] | None:
    """Return what `work` returns, None where the memory does not suffice."""
    try:
        return work(*arguments)  # type: ignore[arg-type]
    except torch.cuda.OutOfMemoryError:
        return None


def noise(seed: int) -> Clip:
    """Return a clip of 7 frames, 600x800, with three objects of 30 pixels."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (7, 600, 800, 3), dtype=torch.uint8, generator=generator)
    corners = torch.rand(3, 2, generator=generator) * torch.tensor([760.0, 560.0])
    targets = Targets(torch.cat((corners, corners + 30), dim=1), torch.tensor([1, 2, 3]))
    return Clip(frames.permute(0, 3, 1, 2).pin_memory(), clip_layout(2, 4), targets, "noise", tuple(range(7)))


if __name__ == "__main__":
    main()
