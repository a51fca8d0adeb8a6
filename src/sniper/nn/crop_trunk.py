"""A classifier without its head that describes a crop: any of timm's, also those that are no backbones (DINOv2)."""

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional

from sniper.errors import CheckpointError, RecipeError
from sniper.nn.backbones import build_trunk
from sniper.nn.weights import load_weights

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CROPS_AT_ONCE = 64
CONTEXT = 0.1  # share of an object's longer side that its crop shows around it
_CROP_PX = 128  # of networks that take any size: a third of the work of 224, and regions are seldom larger


class CropTrunk(nn.Module):
    """(K, 3, side, side) normalised crops to (K, channels) features, each part of length 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, body: nn.Module, side_px: int, colours: tuple[tuple[float, ...], ...]) -> None:
        super().__init__()
        self.name, self.side_px, self.body = name, side_px, body
        self.register_buffer("mean", torch.tensor(colours[0]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(colours[1]).view(3, 1, 1), persistent=False)
        with torch.inference_mode():
            self.channels = self.eval()(torch.zeros(1, 3, side_px, side_px)).shape[1]

    def normalised(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) for this network, of (B, H, W, 3) uint8 RGB."""
        return (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def forward(self, crops: Tensor) -> Tensor:
        """Features of crops; of a network with several maps the mean of each."""
        found = self.body(crops)
        maps = found if isinstance(found, list) else [found]
        return torch.cat([functional.normalize(one.mean(dim=(2, 3)) if one.ndim == 4 else one) for one in maps], dim=1)


def build_crop_trunk(name: str, weights: str | None) -> CropTrunk:
    """The network of a name: ``torchvision/<model>``, or a model of timm, with or without ``timm/``.

    ``weights`` is a file, ``imagenet`` for those that the library downloads, or None: random, for when only its form
    matters.

    Raises:
        RecipeError: there is no such network.
        CheckpointError: the weights cannot be had or do not fit.
    """
    library, _, model = name.rpartition("/")
    if library == "torchvision":
        return CropTrunk(name, build_trunk(name, (16, 32), weights=weights), _CROP_PX, _IMAGENET)
    if library not in ("", "timm") or not timm.is_model(model.split(".")[0]):
        raise RecipeError(f"--features {name}: expected torchvision/<model>, or the name of a model of timm")
    try:
        body = timm.create_model(model, num_classes=0, pretrained=weights == "imagenet")
    except Exception as error:  # downloads fail in as many ways as there are hubs
        raise CheckpointError(
            f"the weights of timm's {model} cannot be had ({str(error).splitlines()[0]}); give a file: "
            "--feature-weights"
        ) from error
    if weights not in (None, "imagenet"):
        load_weights(body, weights, what=f"timm/{model}")
    config = resolve_model_data_config(body)
    return CropTrunk(name, body, config["input_size"][-1], (config["mean"], config["std"]))
