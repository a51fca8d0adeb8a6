"""What a training step costs on a GPU, chips ready: seconds, kernels, busy time of the card, waits of the host.

    python benchmarks/gpu/step.py DATA --recipes resnet50 mobilenetv2 --batches 16 64 --precision bf16

DATA is a dataset of photos (any). Weights are random. JSON, one line a configuration.
"""

import argparse
import collections
import itertools
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from sniper.data.source import load_dataset
from sniper.pipeline.checkpoint_model import pick_device
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import build_detector, resolve_pyramid
from sniper.recipe import Recipe
from sniper.structures import Batch
from sniper.training.devices import pinned

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    """Measure every configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--recipes", nargs="+", default=["resnet50", "mobilenetv2"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--set", nargs="*", default=[], help="more settings of the recipes")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    for recipe, batch in itertools.product(args.recipes, args.batches):
        print(json.dumps(measured(recipe, batch, args)), flush=True)


def measured(name: str, batch_size: int, args: argparse.Namespace) -> dict[str, Any]:
    """One configuration."""
    device = pick_device()
    settings = [f"loader.batch_size={batch_size}", "loader.shuffle_chips=64", "loader.workers=0"]
    table = load_dataset(args.data)
    settings += [] if name.startswith("original/") else ["model.weights=null"]
    recipe, pyramid = resolve_pyramid(Recipe.load(name, [*settings, *args.set]), table)
    torch.manual_seed(0)
    detector = build_detector(recipe, len(table.class_names), pretrained=False)
    detector.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-5, momentum=0.9)
    source = ChipSource(table, pyramid, recipe)
    epochs = itertools.chain.from_iterable(source.epoch(epoch, 0, 0, 1) for epoch in itertools.count())
    ready = [pinned(batch, device) for batch in itertools.islice(epochs, 4)]

    def step(batch: Batch) -> None:
        moved = batch.to(device, channels_last=True)
        with torch.autocast(device.type, dtype=DTYPES[args.precision], enabled=args.precision != "fp32"):
            losses = detector.losses(moved)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    for batch in itertools.islice(itertools.cycle(ready), 8):
        step(batch)
    wait(device)
    started = time.perf_counter()
    for batch in itertools.islice(itertools.cycle(ready), args.steps):
        step(batch)
    wait(device)
    seconds = (time.perf_counter() - started) / args.steps
    result = {
        "recipe": name,
        "chips": batch_size,
        "precision": args.precision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "seconds_a_step": round(seconds, 4),
        "chips_per_second": round(batch_size / seconds, 1),
    }
    return result | (of_the_card(step, ready, device) if device.type == "cuda" else {})


def of_the_card(step: Callable[[Batch], None], ready: list[Batch], device: torch.device) -> dict[str, Any]:
    """Kernels, busy seconds, waits of the host, where they come from, and memory."""
    peak = torch.cuda.max_memory_allocated() / 2**20
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for batch in ready[:2]:
            step(batch)
        wait(device)
    kernels, waits, busy = collections.Counter(), collections.Counter(), collections.Counter()
    for event in recorded.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            kernels[event.name] += 1
            busy[event.name] += event.device_time
        elif "ynchronize" in event.name:
            waits[event.name] += 1
    top = {name[:70]: round(us / 2e3, 2) for name, us in busy.most_common(12)}
    return {
        "kernels_a_step": round(sum(kernels.values()) / 2),
        "busy_seconds_a_step": round(sum(busy.values()) / 2e6, 4),
        "host_waits": dict(waits),  # of two steps, and one at the end
        "waits_in_python": waits_in_python(step, ready[0]),
        "peak_gpu_memory_mb": round(peak),
        "milliseconds_of_kernels": top,
    }


def waits_in_python(step: Callable[[Batch], None], batch: Batch) -> dict[str, int]:
    """Lines from which torch saw the host wait for the device."""
    import warnings

    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step(batch)
    torch.cuda.set_sync_debug_mode("default")
    return dict(collections.Counter(f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in caught))


def wait(device: torch.device) -> None:
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
