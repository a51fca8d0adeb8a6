"""Sizes of input that a network of the library takes."""

import math
from typing import Any, NamedTuple


class InputSizes(NamedTuple):
    """Inputs are padded to these sizes."""

    step_px: int  # sides are multiples of it ...
    min_px: int  # ... and at least this

    def padded_hw(self, height: int, width: int) -> tuple[int, int]:
        """The size of the input that holds one of (height, width) px."""
        return self._padded(height), self._padded(width)

    def _padded(self, side: int) -> int:
        return max(math.ceil(side / self.step_px) * self.step_px, self.min_px)


def input_sizes(config: Any) -> InputSizes:
    """The sizes for a network with this configuration of the library.

    Windows of a vision transformer must divide the input, as must the strides of what fuses maps. A first stage that
    chooses queries among the cells of the maps needs at least as many cells as queries.
    """
    step, cells_per_px = _step_px(config), _cells_per_px(config)
    enough = 0.0 if cells_per_px is None else math.sqrt(config.num_queries / cells_per_px)
    return InputSizes(step, max(1, math.ceil(enough / step)) * step)


def _step_px(config: Any) -> int:
    patch_px, side = _patch_px(config), getattr(getattr(config, "backbone_config", None), "num_windows_side", None)
    if config.model_type == "rf_detr":
        return patch_px * int(config.backbone_config.num_windows)
    if side is not None:  # LW-DETR
        return math.lcm(32, patch_px * int(side))
    return math.lcm(32, patch_px)


def _patch_px(config: Any) -> int:
    """Side of a patch of a vision transformer; 1 for a convolutional network."""
    owner = config if hasattr(config, "patch_size") else getattr(config, "backbone_config", None)
    patch = getattr(owner, "patch_size", 1)
    return int(patch if isinstance(patch, int) else patch[0])


def _cells_per_px(config: Any) -> float | None:
    """Cells of all maps for each px of the input, where queries are chosen among them; None: queries are learned."""
    if hasattr(config, "feat_strides"):
        strides = [float(stride) for stride in config.feat_strides]
    elif config.model_type == "rf_detr":
        strides = [float(_patch_px(config))]
    elif hasattr(config, "projector_scale_factors"):
        strides = [_patch_px(config) / factor for factor in config.projector_scale_factors]
    elif getattr(config, "two_stage", False):
        strides = [8.0 * 2**level for level in range(config.num_feature_levels)]
    else:
        return None
    return sum(1 / stride**2 for stride in strides)
