"""What training costs: peak memory and seconds per step, by backbone and chips per batch, on this machine.

    python benchmarks/train_cost.py mobilenetv2 --batch 4 --steps 300
    python benchmarks/train_cost.py original/coco-resnet101 --batch 16 --precision fp16 --data instances_train2017.json

One configuration per process, because peak memory is the process's. Chips are real ones, of the packaged photos if no
data are named. A step begins when the one before it is done: what it waits for the loader counts.
"""

import argparse
import json
import logging
import os
import resource
import statistics
import time
from itertools import islice

import torch

from sniper.data.source import load_dataset
from sniper.demo.assets import demo_data
from sniper.nn.host_memory import keep_freed_memory
from sniper.pipeline.checkpoint_model import pick_device
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import build_detector, resolve_pyramid
from sniper.recipe import Recipe


def main() -> None:
    """Measure one configuration and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="mobilenetv2", help="name of a shipped recipe")
    parser.add_argument("--data", help="a dataset; none: the packaged photos")
    parser.add_argument("--workers", type=int, default=None, help="of the loader; none: as many as training takes")
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
    settings += ["negatives.proposals=null", *([] if args.workers is None else [f"loader.workers={args.workers}"])]
    table = load_dataset(args.data or demo_data().train)
    recipe, pyramid = resolve_pyramid(Recipe.load(args.recipe, settings), table)
    detector = build_detector(recipe, len(table.class_names), pretrained=False)
    detector.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[args.precision]
    source = ChipSource(table, pyramid, recipe)
    seconds: list[float] = []
    cpu: list[float] = []
    waited: list[float] = []
    batches = (batch for epoch in range(10**6) for batch in source.epoch(epoch, 0, 0, 1))
    wall, busy = time.perf_counter(), time.process_time()
    for batch in islice(batches, args.steps):
        waited.append(time.perf_counter() - wall)
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
    first = min(10, args.steps // 4)  # by which kernels are chosen and the loader's workers have started

    def median(values: list[float]) -> float:
        return round(statistics.median(values[first:]), 4)

    result = {
        "recipe": args.recipe,
        "chips_per_batch": args.batch,
        "steps": len(seconds),
        "threads": args.threads,
        "device": str(device),
        "precision": args.precision,
        "seconds_per_step_median": median(seconds),
        "seconds_waited_for_chips_median": median(waited),
        "cpu_seconds_per_step_median": median(cpu),
        "chips_per_second": round(args.batch * len(seconds[first:]) / sum(seconds[first:]), 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "memory_before_training_mb": round(before),
    }
    if device.type == "cuda":
        result["gpu"] = torch.cuda.get_device_name()
        result["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
