"""What training costs: peak memory and seconds per step, by backbone and chips per batch, on this machine.

    python benchmarks/train_cost.py --backbone mobilenetv2 --batch 4 --steps 300

One configuration per process, because peak memory is the process's. Chips are real ones of the packaged photos.
"""

import argparse
import json
import logging
import os
import resource
import time
from itertools import islice

import torch

from sniper.data.source import load_dataset
from sniper.demo.assets import demo_data
from sniper.detectors.sniper import build_sniper
from sniper.pipeline.model import pick_device, resolve_pyramid
from sniper.pipeline.train import ChipSource
from sniper.recipe import Recipe
from sniper.training.devices import keep_freed_memory


def main() -> None:
    """Measure one configuration and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=["mobilenetv2", "resnet50", "resnet101"], default="mobilenetv2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    device = pick_device()
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    settings = ["model.weights=null", f"loader.batch_size={args.batch}", "loader.shuffle_chips=64"]
    recipe, pyramid = resolve_pyramid(Recipe.load(args.backbone, settings), table := load_dataset(demo_data().train))
    detector = build_sniper(recipe.model, len(table.class_names)).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[args.precision]
    source = ChipSource(table, pyramid, recipe)
    seconds: list[float] = []
    cpu: list[float] = []
    batches = (batch for epoch in range(10**6) for batch in source.epoch(epoch, 0, 0, 1))
    wall, busy = time.perf_counter(), time.process_time()
    for batch in islice(batches, args.steps):
        with torch.autocast(device.type, dtype=dtype, enabled=args.precision != "fp32"):
            loss = sum(detector.losses(batch.to(device, channels_last=True)).values())
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - wall)
        cpu.append(time.process_time() - busy)
        wall, busy = time.perf_counter(), time.process_time()
    warm = sorted(seconds[1:] or seconds), sorted(cpu[1:] or cpu)
    result = {
        "backbone": recipe.model.backbone,
        "chips_per_batch": args.batch,
        "steps": len(seconds),
        "threads": args.threads,
        "device": str(device),
        "precision": args.precision,
        "seconds_per_step_median": round(warm[0][len(warm[0]) // 2], 3),
        "cpu_seconds_per_step_median": round(warm[1][len(warm[1]) // 2], 3),
        "chips_per_second": round(args.batch / warm[0][len(warm[0]) // 2], 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "memory_before_training_mb": round(before),
    }
    if device.type == "cuda":
        result["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
