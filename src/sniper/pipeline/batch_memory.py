"""Whether a batch can fit into the memory, before a run begins: a batch far too large takes the machine with it."""

import copy
import logging
from dataclasses import replace

import psutil
import torch
from torch import Tensor, nn

from sniper.errors import RecipeError, SniperError
from sniper.pipeline.chip_source import ChipSource
from sniper.training.devices import process_device

logger = logging.getLogger("sniper")

_CHIPS = 2  # norms over a batch need more than one
_LOOKED_INTO = 200  # a batch is measured where this many times its pixels in fp32 exceed the free memory
_USABLE = 0.7  # share of the free memory that is advised: gradients and scratch memory are not measured


def require_memory(detector: nn.Module, source: ChipSource) -> None:
    """Let only batches pass whose forward pass may fit into the free memory of the device.

    Two chips are run on the CPU where the pixels of a batch say that it may be close; the detector and random numbers
    stay as they are. A detector that cannot be copied, or fails on them, passes: training tells.

    Raises:
        RecipeError: what the forward pass of a batch keeps for its gradients exceeds the free memory.
    """
    recipe, chip_px = source.recipe, source.pyramid.chip_px
    chips, free = recipe.loader.batch_size, _free_bytes(recipe.train.device)
    if chips * 3 * chip_px**2 * 4 * _LOOKED_INTO <= free:
        return
    try:
        kept = _kept_bytes(detector, source)
    except SniperError:
        raise
    except Exception as error:  # whatever a user's module cannot do
        logger.info("the memory of a batch is not known beforehand: %s", error)
        return
    kept /= 1 if recipe.train.precision == "fp32" else 2
    if chips * kept > free:
        raise RecipeError(
            f"loader.batch_size {chips}: a step needs more than {chips * kept / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free; batches of up to about {max(int(_USABLE * free / kept), 1)} chips fit"
        )


def _free_bytes(device: str) -> int:
    if device != "cpu" and process_device().type == "cuda":
        return int(torch.cuda.mem_get_info(process_device())[0])
    return int(psutil.virtual_memory().available)


def _kept_bytes(detector: nn.Module, source: ChipSource) -> float:
    """Bytes of each chip that a forward pass keeps for the backward pass, in fp32."""
    recipe = source.recipe
    loader = recipe.loader.model_copy(update={"batch_size": _CHIPS, "shuffle_chips": _CHIPS, "workers": 0})
    few = replace(source, recipe=recipe.model_copy(update={"loader": loader}), _loaders=[])
    batch = next(iter(few.epoch(0, 0, 0, 1))).to("cpu")
    trained = copy.deepcopy(detector).train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*trained.parameters(), *trained.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = trained.losses(batch)  # type: ignore[operator]
    del losses
    return sum(kept.values()) / _CHIPS
