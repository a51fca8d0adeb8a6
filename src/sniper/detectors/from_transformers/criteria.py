"""The library's criteria without the queries that found an ignored object or a part of a crowd.

All of them compute a class loss by ``get_loss``: once for the last decoder layer and for each one before it, for
denoising groups, and for the boxes that a two-stage encoder chose. There the logits of such queries are replaced by a
constant that is surely no object: their loss is 0 and no gradient goes through them. A query that was matched keeps its
loss. Matching, box losses and weights are the library's. ``docs/method.md``, "Ignored objects".
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from transformers.loss.loss_d_fine import DFineLoss
from transformers.loss.loss_deformable_detr import DeformableDetrImageLoss
from transformers.loss.loss_deimv2 import Deimv2Loss
from transformers.loss.loss_for_object_detection import ImageLoss
from transformers.loss.loss_lw_detr import LwDetrImageLoss
from transformers.loss.loss_rt_detr import RTDetrLoss

from sniper.detectors.from_transformers.targets import EVERY_BOX, RULE, STATE, corners
from sniper.errors import RecipeError
from sniper.nn.ignore import ignored_queries

CLASS_LOSSES = ("labels", "focal", "bce", "vfl", "mal")  # as the library calls them
SURELY_NOT = -50.0  # logit: focal, varifocal and quality losses of it are 0 in single precision, and none overflows

Matched = list[tuple[Tensor, Tensor]]  # queries and their objects, for each image


class _LeavesOut:
    """Mixed into a criterion with a sigmoid for each class."""

    def get_loss(
        self, loss: str, outputs: dict[str, Tensor], targets: list[dict[str, Any]], indices: Matched, num_boxes: float
    ) -> dict[str, Tensor]:
        if loss not in CLASS_LOSSES or STATE not in targets[0]:
            return self._of_library(loss, outputs, targets, indices, num_boxes)
        matched = _matched(outputs["logits"], indices)
        neither = _neither(outputs["pred_boxes"], targets, matched)
        logits = torch.where(neither.unsqueeze(-1), self._nothing(outputs["logits"]), outputs["logits"])
        found = self._of_library(loss, outputs | {"logits": logits}, targets, indices, num_boxes)
        return {name: value * self._share(matched, neither) for name, value in found.items()}

    def _of_library(self, *args: Any) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = super().get_loss(*args)  # type: ignore[misc]
        return losses

    def _nothing(self, logits: Tensor) -> Tensor:
        """(C,) logits that say surely that there is no object."""
        return torch.full_like(logits[0, 0], SURELY_NOT)

    def _share(self, matched: Tensor, neither: Tensor) -> Tensor | float:
        """What the loss of the remaining queries is multiplied by; these losses are sums over the queries."""
        return 1.0


class SoftmaxLoss(_LeavesOut, ImageLoss):  # type: ignore[misc]
    """DETR, Table Transformer, YOLOS: a softmax with a last class for no object."""

    def _nothing(self, logits: Tensor) -> Tensor:
        nothing = super()._nothing(logits)
        nothing[-1] = 0.0
        return nothing

    def _share(self, matched: Tensor, neither: Tensor) -> Tensor | float:
        """The loss is a mean over all queries, one without an object weighing ``eos_coef``: of those left out, too."""
        every = (matched + (~matched) * self.eos_coef).sum()
        return every / (every - neither.sum() * self.eos_coef).clamp(min=1e-6)


class FocalLoss(_LeavesOut, DeformableDetrImageLoss):  # type: ignore[misc]
    """Conditional, Deformable and DAB-DETR."""


class VarifocalLoss(_LeavesOut, RTDetrLoss):  # type: ignore[misc]
    """RT-DETR, both versions."""


class FineGrainedLoss(_LeavesOut, DFineLoss):  # type: ignore[misc]
    """D-FINE. What a layer learns from the last one's distributions of edges needs no objects and stays whole."""


class MatchabilityLoss(_LeavesOut, Deimv2Loss):  # type: ignore[misc]
    """DEIMv2."""


class QualityLoss(_LeavesOut, LwDetrImageLoss):  # type: ignore[misc]
    """LW-DETR and RF-DETR, every group of queries."""


CRITERIA: dict[str, type] = {
    "ImageLoss": SoftmaxLoss,
    "DeformableDetrImageLoss": FocalLoss,
    "RTDetrLoss": VarifocalLoss,
    "DFineLoss": FineGrainedLoss,
    "Deimv2Loss": MatchabilityLoss,
    "LwDetrImageLoss": QualityLoss,
}


def with_ignored_left_out(loss_function: Callable[..., Any]) -> Callable[..., Any]:
    """The library's loss of a model, computed by our criterion where it builds its own, in single precision.

    The function itself is not changed: a copy of it finds the other class under the same name.

    Raises:
        RecipeError: it builds a criterion that is none of ``CRITERIA``.
    """
    name = criterion_of(loss_function)
    assert isinstance(loss_function, FunctionType)
    scope = {**loss_function.__globals__, name: CRITERIA[name]}
    own = FunctionType(
        loss_function.__code__, scope, loss_function.__name__, loss_function.__defaults__, loss_function.__closure__
    )
    own.__kwdefaults__ = loss_function.__kwdefaults__

    @functools.wraps(loss_function)
    def computed(logits: Tensor, *args: Any, **more: Any) -> Any:
        with torch.autocast(logits.device.type, enabled=False):
            return own(logits.float(), *map(_as_float, args), **{key: _as_float(value) for key, value in more.items()})

    return computed


def criterion_of(loss_function: Callable[..., Any]) -> str:
    """The library's criterion that a loss function builds.

    Raises:
        RecipeError: it builds none that is known here.
    """
    used = getattr(getattr(loss_function, "__code__", None), "co_names", ())
    known = [name for name in CRITERIA if name in used]
    if len(known) != 1:
        raise RecipeError(
            f"the loss {getattr(loss_function, '__name__', loss_function)} of transformers computes with none of "
            f"{', '.join(CRITERIA)}, so ignored objects cannot be left out of it; use another model"
        )
    return known[0]


def _matched(logits: Tensor, indices: Matched) -> Tensor:
    """(B, Q) bool: queries that learn an object."""
    matched = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
    image = torch.cat([torch.full_like(queries, number) for number, (queries, _) in enumerate(indices)])
    matched[image, torch.cat([queries for queries, _ in indices])] = True
    return matched


@torch.no_grad()
def _neither(boxes: Tensor, targets: list[dict[str, Any]], matched: Tensor) -> Tensor:
    """(B, Q) bool: queries without an object on an ignored one or in a crowd; boxes are shares of the input."""
    every_box, state = (torch.stack([one[name] for one in targets]) for name in (EVERY_BOX, STATE))
    return ignored_queries(corners(boxes), every_box, state, matched, **targets[0][RULE]._asdict())


def _as_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
