"""Deformable RoI pooling against the plain grid_sample formulation: seconds and peak memory, forward and backward, CPU.

    python benchmarks/deformable_pooling.py

Proposals of a 512 px chip, sides log-uniform from 24 px to the whole chip, on 256 channels at stride 16. Each side runs
in a process of its own, because peak memory is the process's; one thread, best of several repetitions, and CPU seconds
so that other work on the machine counts less. Both sides give the same numbers (``max_difference``).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from sniper.detectors.original.deformable_pooling import SAMPLES, SHIFT_SCALE, deformable_pool

STRIDE, CELLS, CHIP_PX = 16, 7, 512

Pool = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def ours(features: Tensor, image: Tensor, boxes: Tensor, shifts: Tensor) -> Tensor:
    return deformable_pool(features, image, boxes, shifts, stride=STRIDE, cells=CELLS)


def naive(features: Tensor, image: Tensor, boxes: Tensor, shifts: Tensor) -> Tensor:
    """Every sample by itself: the same number of regions for each image, in order."""
    batch, channels, height, width = features.shape
    per_image = len(boxes) // batch
    corner = torch.floor(boxes[:, :2] + 0.5) / STRIDE - 0.5
    extent = ((torch.floor(boxes[:, 2:] + 0.5) + 1) / STRIDE - 0.5 - corner).clamp(min=0.1)
    bins = torch.arange(CELLS).view(1, CELLS, 1)
    steps = torch.arange(SAMPLES) / SAMPLES
    shift = shifts.permute(0, 2, 3, 1) * SHIFT_SCALE * extent[:, None, None]  # (K, rows, columns, 2)
    size = extent / CELLS
    along_x = corner[:, :1, None] + (bins + steps) * size[:, :1, None]  # (K, CELLS, SAMPLES)
    along_y = corner[:, 1:, None] + (bins + steps) * size[:, 1:, None]
    x = (along_x[:, None, :, None, :] + shift[..., 0][..., None, None]).expand(-1, CELLS, CELLS, SAMPLES, SAMPLES)
    y = (along_y[:, :, None, :, None] + shift[..., 1][..., None, None]).expand(-1, CELLS, CELLS, SAMPLES, SAMPLES)
    counts = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    place = torch.stack((x / (width - 1) * 2 - 1, y / (height - 1) * 2 - 1), dim=-1)
    sampled = functional.grid_sample(
        features, place.view(batch, per_image * CELLS * CELLS, SAMPLES**2, 2), padding_mode="border", align_corners=True
    )
    counts = counts.view(batch, 1, per_image * CELLS * CELLS, SAMPLES**2)
    mean = (sampled * counts).sum(dim=-1) / counts.sum(dim=-1).clamp(min=1)
    return mean.view(batch, channels, per_image, CELLS, CELLS).transpose(1, 2).reshape(-1, channels, CELLS, CELLS)


SIDES: dict[str, Pool] = {"ours": ours, "naive": naive}


def inputs(chips: int, regions: int, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, images, boxes (inclusive px) and shifts."""
    generator = torch.Generator().manual_seed(0)
    count = chips * regions
    side = 24 * (CHIP_PX / 24) ** torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (CHIP_PX - side)
    cells = CHIP_PX // STRIDE
    features = torch.randn(chips, channels, cells, cells, generator=generator).requires_grad_()
    shifts = torch.randn(count, 2, CELLS, CELLS, generator=generator).requires_grad_()
    return features, torch.arange(chips).repeat_interleave(regions), torch.cat((corner, corner + side - 1), 1), shifts


def measure(side: str, size: tuple[int, int, int], repetitions: int, result: Path) -> None:
    """Run one side; leave its output and gradients in ``result`` for comparison, print its costs."""
    torch.set_num_threads(1)
    features, image, boxes, shifts = inputs(*size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forward, backward = [], []
    for _ in range(repetitions):
        start = time.process_time()
        out = SIDES[side](features, image, boxes, shifts)
        middle = time.process_time()
        gradients = torch.autograd.grad(out, (features, shifts), torch.ones_like(out))
        forward.append(middle - start)
        backward.append(time.process_time() - middle)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.save((out.detach(), *gradients), result)
    print(json.dumps({"forward_s": min(forward), "backward_s": min(backward), "peak_mb": (peak - before) / 1024}))


def main() -> None:
    """Measure both sides and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=1)
    parser.add_argument("--regions", type=int, default=300, help="per chip")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = (args.chips, args.regions, args.channels)
    if args.side:
        measure(args.side, size, args.repetitions, args.result)
        return
    report: dict[str, object] = {"chips": args.chips, "regions": args.regions, "channels": args.channels}
    costs, tensors = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            result = Path(folder) / side
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--result", str(result)]
            costs[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            tensors[side] = torch.load(result)
    for side, cost in costs.items():
        report[side] = {name: round(value, 3) for name, value in cost.items()}
    own, other = costs["ours"], costs["naive"]
    report["times_faster"] = round(
        (other["forward_s"] + other["backward_s"]) / (own["forward_s"] + own["backward_s"]), 2
    )
    report["memory_share"] = round(own["peak_mb"] / other["peak_mb"], 3)
    report["max_difference"] = {
        name: float((a - b).abs().max())
        for name, a, b in zip(("out", "grad_features", "grad_shifts"), tensors["ours"], tensors["naive"], strict=True)
    }
    report["load"] = os.getloadavg()[0]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
