"""Backbones: any timm or torchvision classifier as one feature map at a chosen stride, or as several maps.

A classifier shrinks its input in stages (runs of blocks with one stride). ``build_backbone`` keeps the stages up to the
chosen stride and, for context, those beyond it, brought to the same stride, and concatenates the last of them.
"""

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sniper.errors import RecipeError
from sniper.nn.config import Dilation, Norm
from sniper.nn.fusion import Concatenation, Projection
from sniper.nn.stages import OWN, Cut, cut_own, cut_timm, cut_torchvision


class Trunk(nn.Module):
    """A classifier without its head: some of its maps, of ``map_channels`` features, finest first."""

    def __init__(self, cut: Cut, still: list[nn.Module], norm: Norm) -> None:
        super().__init__()
        self.body = cut.body
        self.map_channels = tuple(stage.channels for stage in cut.used)
        norms = [m for m in self.body.modules() if isinstance(m, _BatchNorm)] if norm == "frozen" else []
        self._still = [*still, *norms]  # a plain list: these modules already belong to the body
        for module in self._still:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except that frozen stages and norms go on using their stored statistics."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, F, ceil(H / stride), ceil(W / stride)) maps of (B, 3, H, W) normalised pixels, finest first."""
        maps: list[Tensor] = self.body(pixels)
        return maps


class Backbone(Trunk):
    """A classifier without its head: ``channels`` features at ``stride``.

    ``map_channels`` are those of the maps that the features are made of, finest first.
    """

    def __init__(
        self, cut: Cut, fusion: Concatenation | Projection, stride: int, still: list[nn.Module], norm: Norm
    ) -> None:
        super().__init__(cut, still, norm)
        self.fusion, self.stride = fusion, stride

    @property
    def channels(self) -> int:
        """Features of a cell."""
        return self.fusion.channels

    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        """(B, channels, ceil(H / stride), ceil(W / stride)) features of (B, 3, H, W) normalised pixels."""
        features: Tensor = self.fusion(self.body(pixels))
        return features


def build_trunk(
    name: str,
    strides: tuple[int, ...],
    *,
    weights: str | None = None,
    frozen_stages: int = 0,
    norm: Norm = "train",
) -> Trunk:
    """Cut the classifier ``name`` open and keep its map of each of ``strides``, which rise by factors of two.

    The other arguments are those of ``build_backbone``.

    Raises:
        RecipeError: no such model, or one without a map of each stride.
        CheckpointError: the weights cannot be had or do not fit.
    """
    cut = _cut(name, strides[0], weights, len(strides), "upsample")
    found = tuple(stage.reduction for stage in cut.used)
    if found != strides:
        raise RecipeError(f"backbone {name!r} has maps of strides {found}, not of {strides}; choose another network")
    return Trunk(cut, _frozen(cut, frozen_stages, name), norm)


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
        name: ``torchvision/<model>``, ``timm/<model>`` (timm without a prefix, too) or ``sniper/<model>``, one of
            ``nn.stages.OWN``.
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
    cut = _cut(name, stride, weights, feature_levels, dilation)
    map_channels = tuple(stage.channels for stage in cut.used)
    frozen = _frozen(cut, frozen_stages, name)
    fusion = Projection(map_channels, channels) if channels else Concatenation(map_channels)
    return Backbone(cut, fusion, stride, frozen, norm)


def _cut(name: str, stride: int, weights: str | None, feature_levels: int, dilation: Dilation) -> Cut:
    library, _, model = name.rpartition("/")
    if library == "torchvision":
        return cut_torchvision(model, stride, weights, feature_levels, dilation)
    if library == "sniper":
        return cut_own(model, stride, weights, feature_levels, dilation)
    if library in ("", "timm"):
        return cut_timm(model, stride, weights, feature_levels, dilation)
    raise RecipeError(
        f"backbone {name!r}: expected torchvision/<model>, timm/<model> or sniper/{', sniper/'.join(OWN)}, "
        f"not the library {library!r}"
    )


def _frozen(cut: Cut, frozen_stages: int, name: str) -> list[nn.Module]:
    if not 0 <= frozen_stages <= len(cut.stages):
        raise RecipeError(f"frozen_stages: {name} has {len(cut.stages)} stages, not {frozen_stages}")
    return _leading(cut.body, cut.stages[frozen_stages - 1].module) if frozen_stages else []


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
