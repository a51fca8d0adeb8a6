"""MobileNetV1 (arXiv 1704.04861) at a quarter of its width, the trunk of small face detectors such as RetinaFace's."""

from collections import OrderedDict

from torch import nn

PREFIX = "module."  # before the names in the file of ImageNet weights that goes around
SLOPE = 0.1  # of the leaky ReLU that these weights were trained with

_PLAN = {  # (channels, stride) of each depthwise separable block
    "stage1": [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1)],
    "stage2": [(128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1)],
    "stage3": [(256, 2), (256, 1)],
}


def mobilenet_v1_quarter() -> "OrderedDict[str, nn.Module]":
    """The blocks in order, named as in the file of weights; the stages end at strides 8, 16 and 32."""
    channels = 8
    blocks: OrderedDict[str, nn.Module] = OrderedDict(stage1_0=nn.Sequential(*_conv(3, channels, 3, stride=2)))
    for stage, plan in _PLAN.items():
        first = len([name for name in blocks if name.startswith(stage)])
        for number, (width, stride) in enumerate(plan, first):
            depthwise = _conv(channels, channels, 3, stride=stride, groups=channels)
            blocks[f"{stage}_{number}"] = nn.Sequential(*depthwise, *_conv(channels, width, 1))
            channels = width
    return blocks


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE, inplace=True)]
