"""Levels of the pyramid: how an image is scaled, and which objects count at that scale.

Settings: reading a recipe imports this module, which leaves NumPy to the methods that compute, and numba to others.
Valid ranges are the square root of box area in *original* pixels, as in SNIP (arXiv 1711.08189, section 5).
Levels are derived from a dataset in ``auto_levels``; ``validity`` has the rule.
``docs/method.md``, "Levels and valid ranges".
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from sniper.settings import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Bound = Annotated[float, Field(ge=0)]
Range = tuple[Bound, Bound | None]

FOCUS_PX = 5.0, 64.0  # objects between these sizes deserve a finer level, sqrt(area) in network px: the default


class Level(Config):
    """One scale. Give exactly one form: ``scale``, or ``short_px`` and ``long_px`` (either or both)."""

    scale: float | None = Field(None, gt=0, description="network px per original px, the same for every image")
    short_px: int | None = Field(None, gt=0, description="resize so that the short side has this many px ...")
    long_px: int | None = Field(None, gt=0, description="... unless the long side would exceed this many px")
    max_scale: float | None = Field(
        None, gt=0, description="with sides: small images are enlarged no further than this, network px per original px"
    )
    train_range_px: Range = Field(
        (0.0, None), description="valid objects in training, sqrt(area) in original px, low <= size < high; null = open"
    )
    infer_range_px: Range = Field(
        (0.0, None), description="detections kept at inference, sqrt(area) in original px; null = open"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        sides = self.short_px is not None or self.long_px is not None
        if (self.scale is not None) == sides:
            raise ValueError("a level takes either scale, or short_px and/or long_px")
        if self.max_scale is not None and not sides:
            raise ValueError("max_scale goes with short_px or long_px; a scale needs no bound")
        for name in ("train_range_px", "infer_range_px"):
            low, high = getattr(self, name)
            if high is not None and high <= low:
                raise ValueError(f"{name}: the upper bound {high} must exceed the lower bound {low}")
        return self

    def scales(self, sizes_wh: "NDArray[np.integer] | NDArray[np.floating]") -> "NDArray[np.float64]":
        """(I,) scale of images of (I, 2) size, network px per original px.

        With both sides given, the short side rules unless the rounded long side would exceed ``long_px``.
        """
        import numpy as np

        sizes = np.asarray(sizes_wh, dtype=np.float64).reshape(-1, 2)
        if self.scale is not None:
            return np.full(len(sizes), self.scale)
        scale = self._by_sides(sizes.min(axis=1), sizes.max(axis=1))
        return scale if self.max_scale is None else np.minimum(scale, self.max_scale)

    def _by_sides(self, short: "NDArray[np.float64]", long: "NDArray[np.float64]") -> "NDArray[np.float64]":
        import numpy as np

        if self.short_px is None:
            assert self.long_px is not None
            return self.long_px / long
        scale = self.short_px / short
        if self.long_px is None:
            return scale
        return np.where(np.round(scale * long) > self.long_px, self.long_px / long, scale)


def bounds(range_px: Range) -> tuple[float, float]:
    """A range with its open end as infinity."""
    low, high = range_px
    return float(low), math.inf if high is None else float(high)


class Pyramid(Config):
    """The levels of a run, finest first, and the size of its chips."""

    levels: tuple[Level, ...] = Field(min_length=1, description="levels, finest first")
    chip_px: int = Field(512, ge=64, description="side of a chip, network px")

    def scales(self, sizes_wh: "NDArray[np.integer]") -> "NDArray[np.float64]":
        """(I, L) scale of every image at every level."""
        import numpy as np

        return np.stack([level.scales(sizes_wh) for level in self.levels], axis=1)

    def train_ranges_px(self) -> "NDArray[np.float64]":
        """(L, 2) valid ranges in training, original px, open ends as infinity."""
        import numpy as np

        return np.asarray([bounds(level.train_range_px) for level in self.levels], dtype=np.float64)

    def infer_ranges_px(self) -> "NDArray[np.float64]":
        """(L, 2) ranges kept at inference, original px, open ends as infinity."""
        import numpy as np

        return np.asarray([bounds(level.infer_range_px) for level in self.levels], dtype=np.float64)


class PyramidConfig(Config):
    """How the pyramid is chosen: given level by level, or derived from the dataset."""

    levels: Literal["auto"] | Annotated[tuple[Level, ...], Field(min_length=1)] = Field(
        "auto", description="'auto', or the levels, finest first"
    )
    chip_px: Annotated[int, Field(ge=64)] | Literal["auto"] = Field(
        "auto", description="side of a chip, network px; auto: 512, less where all scaled images are smaller"
    )
    object_px: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="size the detector sees best, sqrt(area) in network px; auto: 4 feature cells"
    )
    max_scale: float = Field(4.0, gt=0, description="the finest level that auto may choose, network px per original px")
    max_spread: float = Field(
        12.0,
        gt=1,
        description="auto: one level serves objects whose sizes differ by up to this ratio; more levels beyond",
    )
    economy: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="auto: share of the expected AP that coarser levels, which cost fewer pixels, may give up; 0: none",
    )
