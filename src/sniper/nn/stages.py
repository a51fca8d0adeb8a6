"""Cutting the classifiers of timm and torchvision open into stages: runs of blocks with one stride."""

import difflib
import logging
from collections import OrderedDict
from functools import lru_cache
from typing import NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from sniper.errors import CheckpointError, RecipeError, SniperError
from sniper.fetch import cache_folder, cached
from sniper.fetch.shipped import shipped, shipped_hint
from sniper.nn.config import Dilation
from sniper.nn.dilation import hold_stride, reductions
from sniper.nn.mobilenet_v1 import PREFIX, mobilenet_v1_quarter
from sniper.nn.weights import load_weights

logger = logging.getLogger("sniper")

OWN = {"mobilenet_v1_x0.25": mobilenet_v1_quarter}  # classifiers that neither timm nor torchvision has


class Stage(NamedTuple):
    """The last block of a run of blocks that share a stride."""

    module: str  # name inside the body
    reduction: int  # input px per cell in the classifier
    channels: int


class Cut(NamedTuple):
    """A classifier without its head."""

    body: nn.Module  # returns the maps of ``used``, finest first
    stages: list[Stage]  # all stages, finest first
    used: list[Stage]  # those whose maps are concatenated


class _Blocks(nn.Module):
    """The blocks of a torchvision classifier, returning the output of some of them."""

    def __init__(self, blocks: "OrderedDict[str, nn.Module]", returned: tuple[str, ...]) -> None:
        super().__init__()
        self.returned = returned
        for name, block in blocks.items():
            self.add_module(name, block)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = []
        for name, block in self.named_children():
            pixels = block(pixels)
            if name in self.returned:
                maps.append(pixels)
        return maps


def _choose(stages: list[Stage], stride: int, feature_levels: int, dilation: Dilation, name: str) -> list[Stage]:
    """The stages whose maps are concatenated."""
    own = [stage for stage in stages if stage.reduction == stride]
    later = [stage for stage in stages if stage.reduction > stride]
    if not own:
        strides = ", ".join(str(stage.reduction) for stage in stages)
        raise RecipeError(f"backbone {name!r} has no map of stride {stride}, only of {strides}; choose one of these")
    if dilation == "stop":
        return own
    if dilation == "upsample":
        return own + later[len(later) - min(feature_levels - 1, len(later)) :]
    return (own + later)[-feature_levels:]


def cut_timm(name: str, stride: int, weights: str | None, feature_levels: int, dilation: Dilation) -> Cut:
    if not timm.is_model(name.split(".")[0]):
        raise RecipeError(f"timm has no model {name!r}{_nearest(name, timm.list_models())}")
    weights = _here(f"timm/{name}", weights)
    try:
        maps = _maps_of_timm(name)
        stages = [
            s for s, after in zip(maps, [*maps[1:], None], strict=True) if not after or after.reduction != s.reduction
        ]
        used = _choose(stages, stride, feature_levels, dilation, name)
        places = [one.module for one in maps]
        body = timm.create_model(
            name,
            features_only=True,
            pretrained=weights == "imagenet",
            out_indices=tuple(places.index(stage.module) for stage in used),
            **({"output_stride": stride} if dilation == "dilate" and used[-1].reduction > stride else {}),
        )
    except SniperError:
        raise
    except (NotImplementedError, AssertionError, TypeError, RuntimeError) as error:
        if weights == "imagenet" and isinstance(error, RuntimeError) and "pretrained" in str(error):
            raise CheckpointError(f"no ImageNet weights for timm's {name}: {error}; give a file or null") from error
        raise RecipeError(
            f"timm's {name} cannot have stride {stride} with dilation={dilation!r} ({error}); try dilation='upsample'"
        ) from error
    except Exception as error:  # downloads fail in as many ways as there are hubs
        raise _no_download(f"timm/{name}", error) from error
    if weights not in (None, "imagenet"):
        load_weights(body, weights, what=f"timm/{name}")
    return Cut(body, stages, used)


@lru_cache
def _maps_of_timm(name: str) -> tuple[Stage, ...]:
    """All maps of timm's ``name``, finest first; the network is laid out once, without weights."""
    with torch.device("meta"):
        probe = timm.create_model(name, features_only=True)
    if probe.pretrained_cfg.get("fixed_input_size"):
        raise RecipeError(f"timm's {name} takes images of one size only; choose a convolutional network")
    return tuple(Stage(i["module"], i["reduction"], i["num_chs"]) for i in probe.feature_info.get_dicts())


def cut_torchvision(name: str, stride: int, weights: str | None, feature_levels: int, dilation: Dilation) -> Cut:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise RecipeError(f"torchvision has no classifier {name!r}{_nearest(name, known)}")
    weights = _here(f"torchvision/{name}", weights)
    try:
        model = torchvision.models.get_model(name, weights="DEFAULT" if weights == "imagenet" else None)
    except (OSError, RuntimeError) as error:  # no network, or a damaged file
        if weights != "imagenet":
            raise
        weights = _shipped(f"torchvision/{name}", error)
        model = torchvision.models.get_model(name, weights=None)
    blocks, prefix = _blocks(model, name)
    return _cut_blocks(blocks, f"torchvision/{name}", prefix, stride, weights, feature_levels, dilation)


def cut_own(name: str, stride: int, weights: str | None, feature_levels: int, dilation: Dilation) -> Cut:
    """Networks of ``OWN``, whose weights nobody serves under a name: they are a file, or random."""
    if name not in OWN:
        raise RecipeError(f"sniper has no classifier {name!r}{_nearest(name, list(OWN))}")
    if weights == "imagenet":
        raise CheckpointError(
            f"sniper/{name} has no ImageNet weights to download; set model.weights to a file with them, as "
            "RetinaFace's mobilenetV1X0.25_pretrain.tar, or to null"
        )
    return _cut_blocks(OWN[name](), f"sniper/{name}", PREFIX, stride, weights, feature_levels, dilation)


def _cut_blocks(
    blocks: "OrderedDict[str, nn.Module]",
    name: str,
    prefix: str,
    stride: int,
    weights: str | None,
    feature_levels: int,
    dilation: Dilation,
) -> Cut:
    """``prefix`` stands before the names of the blocks in a file of ``weights``."""
    after_block = reductions(_Blocks(blocks, ())).children
    names = list(blocks)
    stages = [
        Stage(block, *after_block[block])
        for block, after in zip(names, [*names[1:], None], strict=True)
        if after is None or after_block[after][0] != after_block[block][0]
    ]
    used = _choose(stages, stride, feature_levels, dilation, name)
    end = names.index(used[-1].module) + 1
    body = _Blocks(OrderedDict((block, blocks[block]) for block in names[:end]), tuple(stage.module for stage in used))
    if weights not in (None, "imagenet"):
        load_weights(body, weights, what=name, prefix=prefix)
    if dilation == "dilate":
        hold_stride(body, stride)
    return Cut(body, stages, used)


def _blocks(model: nn.Module, name: str) -> "tuple[OrderedDict[str, nn.Module], str]":
    """The convolutional blocks in order, and the prefix of their names in the model's state dict."""
    if isinstance(features := getattr(model, "features", None), nn.Sequential):
        blocks = OrderedDict(features.named_children())
        last = next(reversed(blocks))
        convolution = next((m for m in blocks[last].modules() if isinstance(m, nn.Conv2d)), None)
        if isinstance(blocks[last], Conv2dNormActivation) and convolution and convolution.kernel_size == (1, 1):
            del blocks[last]  # MobileNet's and EfficientNet's last 1x1 convolution only feeds the classifier
        return blocks, "features."
    if isinstance(model, torchvision.models.ResNet):
        return OrderedDict((n, m) for n, m in model.named_children() if n not in ("avgpool", "fc")), ""
    raise RecipeError(f"torchvision/{name} is neither a ResNet nor a stack of blocks; use the model of timm instead")


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _here(backbone: str, weights: str | None) -> str | None:
    """``weights``, or the file of the backbone's own ones if ``sniper download`` has fetched them."""
    found = cached(backbone) if weights == "imagenet" else None
    return weights if found is None else str(found)


def _shipped(backbone: str, error: Exception) -> str:
    """The file of weights that the package ships for a backbone, where its own could not be downloaded."""
    found = shipped(backbone)
    if found is None:
        raise _no_download(backbone, error) from error
    logger.warning(
        "the ImageNet weights of %s could not be downloaded (%s); the shipped ones, an earlier version, are taken: %s",
        backbone, _reason(error), found,
    )  # fmt: skip
    return str(found)


def _no_download(what: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the ImageNet weights of {what} could not be downloaded ({_reason(error)}); where there is a network, "
        f"'sniper download {what}' puts them into {cache_folder()}, where they are found; or set model.weights to a "
        f"file or to null, or choose a backbone whose weights are {shipped_hint()}"
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
