"""What thousands of classes cost a detector: R-FCN-3K, a plain head, and position-sensitive maps for each class.

    python benchmarks/rfcn3k_cost.py --rounds 7

One padded input of 512 px, random weights, the default trunk (MobileNetV2), one thread. Rounds alternate between the
detectors; the median of the CPU seconds counts. ``rfcn3k`` is ours; ``sniper`` has a row of its last layer for each
class, behind two hidden layers; ``rfcn`` is the head of R-FCN (arXiv 1605.06409): 49 maps a class.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import nn
from torchvision.ops import ps_roi_align

from sniper.detectors.rfcn3k.config import Rfcn3kConfig
from sniper.detectors.rfcn3k.network import build_rfcn3k
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.structures import Images


class Way(NamedTuple):
    """A detector and its forward pass."""

    name: str
    classes: int
    parameters: int
    run: Callable[[], object]


def ways(side: int) -> list[Way]:
    """All detectors that are compared."""
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.tensor([[side, side]]), torch.ones(1))
    found = []
    for classes in (20, 3130):
        many = build_rfcn3k(Rfcn3kConfig(weights=None), torch.zeros(classes, dtype=torch.int64))
        plain = build_sniper(SniperConfig(weights=None), classes)
        for name, detector in (("rfcn3k", many), ("sniper", plain)):
            detector.eval().to(memory_format=torch.channels_last)
            found.append(Way(name, classes, _count(detector), lambda detector=detector: detector.detect(images)))
        maps = nn.Conv2d(many.head.reduce.out_channels, 49 * (classes + 1), 1)
        found.append(Way("rfcn", classes, _count(many) + _count(maps), _rfcn(many, maps, images)))
    return found


def _rfcn(detector: nn.Module, maps: nn.Conv2d, images: Images) -> Callable[[], object]:
    @torch.no_grad()
    def run() -> object:
        features = detector.backbone(detector.normalise(images))
        proposals = detector._proposals(features, images)
        boxes = proposals.boxes[0]
        regions = torch.cat((torch.zeros(len(boxes), 1), boxes), dim=1)
        votes = ps_roi_align(maps(detector.head.reduce(features)), regions, 7, 1 / detector.stride, 2)
        return votes.mean(dim=(2, 3)).softmax(dim=1)

    return run


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=512, help="of the padded input, px")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    compared = ways(args.side)
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(args.rounds + 1):  # the first one compiles
        for way in compared:
            if way.name == "rfcn" and way.classes > 20 and turn > 2:
                continue  # seconds and gigabytes: two rounds tell
            started = time.process_time()
            way.run()
            if turn:
                seconds.setdefault((way.name, way.classes), []).append(time.process_time() - started)
    for way in compared:
        cpu = median(seconds[way.name, way.classes])
        row = {"detector": way.name, "classes": way.classes, "cpu_s": round(cpu, 4), "parameters": way.parameters}
        print(json.dumps(row | {"times_20": round(cpu / median(seconds[way.name, 20]), 3)}))
    print(json.dumps({"peak_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)}))


if __name__ == "__main__":
    main()
