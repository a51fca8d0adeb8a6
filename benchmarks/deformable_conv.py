"""Deformable convolution against torchvision's operator, both with the original's border rule: CPU seconds, one thread.

    python benchmarks/deformable_conv.py

The layer of ResNet-101's fourth stage: 512 channels, 3 x 3 taps, dilation 2, 4 groups. torchvision's side is what
``sniper`` runs on a GPU (places moved to where torchvision is exact); both give the same numbers (``max_difference``).
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sniper.detectors.original.deformable import at_places, deformable_conv

CHANNELS, GROUPS, DILATION = 512, 4, 2


def torchvision(features: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return at_places(features, offset, weight, None, stride=1, padding=DILATION, dilation=DILATION)


def ours(features: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return deformable_conv(features, offset, weight, padding=DILATION, dilation=DILATION)


def seconds(conv: Callable[..., Tensor], inputs: tuple[Tensor, ...], repetitions: int) -> dict[str, float]:
    """Best CPU seconds of a forward and a backward pass."""
    forward, backward = [], []
    for _ in range(repetitions):
        start = time.process_time()
        out = conv(*inputs)
        middle = time.process_time()
        torch.autograd.grad(out, inputs, torch.ones_like(out))
        forward.append(middle - start)
        backward.append(time.process_time() - middle)
    return {"forward_s": round(min(forward), 4), "backward_s": round(min(backward), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--size-px", type=int, nargs=2, default=(256, 320), help="height and width of the input")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, columns = (side // 16 for side in args.size_px)
    inputs = (
        torch.randn(args.images, CHANNELS, rows, columns, requires_grad=True),
        torch.randn(args.images, GROUPS * 2 * 9, rows, columns, requires_grad=True),
        (torch.randn(CHANNELS, CHANNELS, 3, 3) * 0.02).requires_grad_(),
    )
    own, other = (seconds(conv, inputs, args.repetitions) for conv in (ours, torchvision))
    report = {"images": args.images, "size_px": args.size_px, "ours": own, "torchvision": other}
    report["times_faster_forward"] = round(other["forward_s"] / own["forward_s"], 2)
    report["times_faster_training"] = round(sum(other.values()) / sum(own.values()), 2)
    with torch.no_grad():
        report["max_difference"] = float((ours(*inputs) - torchvision(*inputs)).abs().max())
    report["load"] = os.getloadavg()[0]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
