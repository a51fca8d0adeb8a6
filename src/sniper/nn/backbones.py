"""Backbones: any timm or torchvision classifier as one feature map at a chosen stride.

A classifier shrinks its input in stages (runs of blocks with one stride). ``build_backbone`` keeps the stages up to the
chosen stride and, for context, those beyond it, brought to the same stride, and concatenates the last of them.
"""

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sniper.errors import RecipeError
from sniper.nn.config import Dilation, Norm
from sniper.nn.fusion import Concatenation, Projection
from sniper.nn.stages import Cut, cut_timm, cut_torchvision


class Backbone(nn.Module):
    """A classifier without its head: ``channels`` features at ``stride``.

    ``map_channels`` are those of the maps that the features are made of, finest first.
    """

    def __init__(
        self, cut: Cut, fusion: Concatenation | Projection, stride: int, still: list[nn.Module], norm: Norm
    ) -> None:
        super().__init__()
        self.body, self.fusion, self.stride = cut.body, fusion, stride
        self.map_channels = tuple(stage.channels for stage in cut.used)
        norms = [m for m in self.body.modules() if isinstance(m, _BatchNorm)] if norm == "frozen" else []
        self._still = [*still, *norms]  # a plain list: these modules already belong to the body
        for module in self._still:
            module.requires_grad_(False)

    @property
    def channels(self) -> int:
        """Features of a cell."""
        return self.fusion.channels

    def train(self, mode: bool = True) -> Self:
        """Training mode, except that frozen stages and norms go on using their stored statistics."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, channels, ceil(H / stride), ceil(W / stride)) features of (B, 3, H, W) normalised pixels."""
        features: Tensor = self.fusion(self.body(pixels))
        return features


def build_backbone(
    name: str,
    *,
    stride: int = 16,
    weights: str | None = None,
    feature_levels: int = 2,
    dilation: Dilation = "dilate",
    frozen_stages: int = 0,
    norm: Norm = "train",
    channels: int | None = None,
) -> Backbone:
    """Cut the classifier ``name`` open.

    Args:
        name: ``torchvision/<model>`` or ``timm/<model>``; timm without a prefix.
        stride: input px per cell: 8, 16 or 32.
        weights: ``imagenet`` (downloaded by the library), a file (.pth, .safetensors), or None for random ones.
        feature_levels: how many maps are concatenated.
        dilation: what happens to the stages that would have a larger stride. ``dilate``: they keep the stride and
            dilate their filters (the last ``feature_levels`` maps are used, as in the original). ``upsample``: they
            run at their own stride and are enlarged (the map of the stride and the last ``feature_levels - 1``): far
            cheaper. ``stop``: cut off.
        frozen_stages: how many leading stages (runs of blocks with one stride; ResNet: the stem is the first) keep
            their weights and statistics.
        norm: ``train``, or ``frozen``: batch norm with stored statistics and constant affine, also in training mode.
        channels: project the maps to so many features and add them up; None concatenates them.

    Raises:
        RecipeError: no such model, or one that cannot be cut open at this stride.
        CheckpointError: the weights cannot be had or do not fit.
    """
    library, _, model = name.rpartition("/")
    if library == "torchvision":
        cut = cut_torchvision(model, stride, weights, feature_levels, dilation)
    elif library in ("", "timm"):
        cut = cut_timm(model, stride, weights, feature_levels, dilation)
    else:
        raise RecipeError(
            f"backbone {name!r}: expected torchvision/<model> or timm/<model>, not the library {library!r}"
        )
    if not 0 <= frozen_stages <= len(cut.stages):
        raise RecipeError(f"frozen_stages: {name} has {len(cut.stages)} stages, not {frozen_stages}")
    frozen = _leading(cut.body, cut.stages[frozen_stages - 1].module) if frozen_stages else []
    map_channels = tuple(stage.channels for stage in cut.used)
    fusion = Projection(map_channels, channels) if channels else Concatenation(map_channels)
    return Backbone(cut, fusion, stride, frozen, norm)


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
