"""Backbones: any timm or torchvision classifier as one feature map at a chosen stride.

A classifier shrinks its input in stages (runs of blocks with one stride). ``build_backbone`` keeps the stages up to the
chosen stride and, for context, those beyond it, brought to the same stride, and concatenates the last of them.
"""

from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.errors import RecipeError
from sniper.nn.stages import Beyond, Stage, cut_timm, cut_torchvision

Norm = Literal["train", "frozen"]


class Backbone(nn.Module):
    """Concatenated maps of a classifier, all at ``stride``.

    ``channels`` is the number of features, ``map_channels`` how they divide into the maps, finer stage first.
    """

    def __init__(self, body: nn.Module, used: list[Stage], stride: int, frozen: list[nn.Module], norm: Norm) -> None:
        super().__init__()
        self.body, self.stride = body, stride
        self.map_channels = tuple(stage.channels for stage in used)
        self.channels = sum(self.map_channels)
        norms = (
            [m for m in body.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] if norm == "frozen" else []
        )
        for module in (*frozen, *norms):
            module.requires_grad_(False)
        # Plain lists: the modules already belong to the body.
        self._still = [*frozen, *norms]

    def train(self, mode: bool = True) -> Self:
        """Training mode, except that frozen stages and norms go on using their stored statistics."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, channels, ceil(H / stride), ceil(W / stride)) features of (B, 3, H, W) normalised pixels."""
        maps = self.body(pixels)
        rows = -(-pixels.shape[2] // self.stride)
        columns = -(-pixels.shape[3] // self.stride)
        aligned = []
        for one in maps:
            if one.shape[2] < rows or one.shape[3] < columns:
                # Whole factors and a cut, so that cells stay over the pixels they saw whatever the canvas size.
                factor = max(-(-rows // one.shape[2]), -(-columns // one.shape[3]))
                factor = 1 << (factor - 1).bit_length()
                one = functional.interpolate(one, scale_factor=float(factor), mode="nearest")[:, :, :rows, :columns]
            aligned.append(one)
        return aligned[0] if len(aligned) == 1 else torch.cat(aligned, dim=1)


def build_backbone(
    name: str,
    *,
    stride: int = 16,
    weights: str | None = None,
    out: int = 2,
    beyond: Beyond = "dilate",
    frozen_stages: int = 0,
    norm: Norm = "train",
) -> Backbone:
    """Cut the classifier ``name`` open.

    Args:
        name: ``torchvision/<model>`` or ``timm/<model>``; timm without a prefix.
        stride: input px per cell: 8, 16 or 32.
        weights: ``imagenet`` (downloaded by the library), a file (.pth, .safetensors), or None for random ones.
        out: how many maps are concatenated.
        beyond: what happens to the stages that would have a larger stride. ``dilate``: they keep the stride and dilate
            their filters (the last ``out`` maps are used, as in the original). ``upsample``: they run at their own
            stride and are enlarged (the map of the stride and the last ``out - 1``): far cheaper. ``stop``: cut off.
        frozen_stages: how many leading stages (runs of blocks with one stride; ResNet: the stem is the first) keep
            their weights and statistics.
        norm: ``train``, or ``frozen``: batch norm with stored statistics and constant affine, also in training mode.

    Raises:
        RecipeError: no such model, or one that cannot be cut open at this stride.
        CheckpointError: the weights cannot be had or do not fit.
    """
    library, _, model = name.rpartition("/")
    if library == "torchvision":
        cut = cut_torchvision(model, stride, weights, out, beyond)
    elif library in ("", "timm"):
        cut = cut_timm(model, stride, weights, out, beyond)
    else:
        raise RecipeError(
            f"backbone {name!r}: expected torchvision/<model> or timm/<model>, not the library {library!r}"
        )
    if not 0 <= frozen_stages <= len(cut.stages):
        raise RecipeError(f"frozen_stages: {name} has {len(cut.stages)} stages, not {frozen_stages}")
    frozen = _leading(cut.body, cut.stages[frozen_stages - 1].module) if frozen_stages else []
    return Backbone(cut.body, cut.used, stride, frozen, norm)


def _leading(body: nn.Module, last: str) -> list[nn.Module]:
    """The modules that run up to and including ``last``, without those that also contain later ones."""
    leading: list[nn.Module] = []
    inside = False
    names = (last, last.replace(".", "_"))  # timm renames what it takes apart
    for name, module in body.named_modules():
        here = name in names or name.startswith(tuple(known + "." for known in names))
        if inside and not here:
            break
        inside = here
        if name and not last.startswith(name + "."):
            leading.append(module)
    return leading
