"""The original ResNet-101 detector against the same network of plain torchvision pieces: seconds of a forward pass.

    python benchmarks/original_forward.py

One picture of 256 x 320, 300 regions, one thread. The plain side has torchvision's ResNet-101 with a dilated fourth
stage, ordinary convolutions and ``roi_align``, and heads of the same sizes: what the deformable operators and the
original's border rule cost on top is the ratio. Both sides are measured in turns, in the same run.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import resnet101
from torchvision.ops import roi_align

from sniper.detectors.original.network import OriginalSniper, sniper_resnet101

CLASSES, REGIONS, HEIGHT, WIDTH = 80, 300, 256, 320


class Plain(nn.Module):
    """Features of stages 3 and 4 side by side, a proposal network, and a head on 7 x 7 cells of each region."""

    def __init__(self) -> None:
        super().__init__()
        net = resnet101(weights=None, replace_stride_with_dilation=[False, False, True])
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2)
        self.stage3, self.stage4 = net.layer3, net.layer4
        self.rpn = nn.Sequential(nn.Conv2d(3072, 512, 3, padding=1), nn.ReLU(), nn.Conv2d(512, 6 * 21, 1))
        self.reduce = nn.Sequential(nn.Conv2d(3072, 256, 1), nn.ReLU())
        self.head = nn.Sequential(
            nn.Linear(256 * 49, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, CLASSES + 5)
        )

    def forward(self, pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Proposal maps and region outputs."""
        third = self.stage3(self.stem(pixels))
        features = torch.cat((third, self.stage4(third)), dim=1)
        cut = roi_align(self.reduce(features), [boxes], 7, 1 / 16, sampling_ratio=4, aligned=True)
        return self.rpn(features), self.head(cut.flatten(1))


def original(detector: OriginalSniper, pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The same of ours."""
    maps = detector.maps(pixels)
    image = torch.zeros(len(boxes), dtype=torch.int64)
    return maps.regions.deltas, detector.regions(maps, image, boxes).logits


def main() -> None:
    """Print both times and their ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    corners = torch.rand(REGIONS, 2, 2) * torch.tensor([WIDTH, HEIGHT])
    boxes = torch.cat((corners.amin(dim=1), corners.amax(dim=1) + 16), dim=1)
    pixels = torch.randn(1, 3, HEIGHT, WIDTH)
    ours, plain = sniper_resnet101(CLASSES).eval(), Plain().eval()
    sides: dict[str, Callable[[], object]] = {
        "sniper_resnet101": lambda: original(ours, pixels, boxes),
        "torchvision pieces": lambda: plain(pixels, boxes),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, run in sides.items():
                started = time.process_time()
                run()
                if number:  # the first round warms up
                    seconds[name].append(time.process_time() - started)
    medians = {name: sorted(times)[len(times) // 2] for name, times in seconds.items()}
    result = {
        "claim": "forward pass of the original ResNet-101 detector",
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
        "cpu_seconds": medians,
        "ratio": medians["sniper_resnet101"] / medians["torchvision pieces"],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
