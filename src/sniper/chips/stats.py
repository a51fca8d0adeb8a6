"""The coverage report: which objects training can learn, and what an epoch costs against the alternatives.

``docs/method.md``, "Automatic levels".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.boxes import sqrt_area
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.grid import axis_counts
from sniper.chips.negative import NegativeConfig, Proposals
from sniper.chips.positive import valid_objects
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.table import AnnotationTable
from sniper.pyramid import Level, Pyramid
from sniper.validity import ScaledImages, scaled_sizes

TILE_PX = 512
TILE_OVERLAP = 0.2
SMALLEST_PX = 2.0  # objects below this size (sqrt of area, original px) are not counted as missed
TOO_MANY_MISSED = 0.01

Cells = list[list[str]]


@dataclass(frozen=True, slots=True)
class LevelStats:
    """One level of the pyramid. L such rows make a pyramid."""

    scale: str
    range_px: tuple[float, float]  # sqrt(area), original px
    valid_share: float  # of all objects that are not ignored
    chips: int  # positive ones of the first epoch
    negatives: int = 0  # negative ones


@dataclass(frozen=True, slots=True)
class Coverage:
    """What chips of a dataset cover and cost."""

    images: int
    objects: int  # ignored ones left out
    ignored: int  # crowds, group-ofs and difficult objects
    chip_px: int
    levels: tuple[LevelStats, ...]
    valid_in: tuple[float, float, float]  # share of the objects valid at no level, at one, at several
    missed: NDArray[np.float64]  # sqrt(area) of objects of 2 px and more that are valid nowhere, thin ones first
    chips: dict[str, int]  # by kind, first epoch
    pixels: dict[str, float]  # per epoch, by way of training on the dataset
    thin: int  # of the missed, those with a shorter side below ``min_side_px``
    min_side_px: float  # original px
    proposals: int | None = None  # false positives that negative chips were made from; none: no proposals given

    @property
    def covered(self) -> float:
        """Share of the objects of 2 px and more that are valid at some level."""
        return 1 - len(self.missed) / max(self._countable, 1)

    @property
    def _countable(self) -> int:
        return self.objects - self.tiny

    @property
    def tiny(self) -> int:
        """Objects below 2 px."""
        return round(self.objects * self.valid_in[0]) - len(self.missed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": self.images,
            "objects": self.objects,
            "ignored": self.ignored,
            "chip_px": self.chip_px,
            "levels": [
                {
                    "scale": s.scale,
                    "range_px": list(s.range_px),
                    "valid_share": s.valid_share,
                    "chips": s.chips,
                    "negatives": s.negatives,
                }
                for s in self.levels
            ],
            "covered": self.covered,
            "valid_in_none_one_several": list(self.valid_in),
            "chips": self.chips,
            "proposals": self.proposals,
            "pixels_per_epoch": self.pixels,
        }

    def tables(self) -> list[tuple[str, list[str], Cells]]:
        """Title, columns and rows of each table, for a terminal or a page."""
        none, one, several = (f"{share:.1%}" for share in self.valid_in)
        levels = [
            [s.scale, _range(s.range_px), f"{s.valid_share:.1%}", str(s.chips), f"{s.chips / max(self.images, 1):.2f}"]
            for s in self.levels
        ]
        columns = ["scale", "valid range, px", "objects valid", "chips", "chips / image"]
        if self.proposals is not None:
            columns.append("negative chips")
            levels = [[*row, str(s.negatives)] for row, s in zip(levels, self.levels, strict=True)]
        own = max(self.pixels["chips"], 1)
        pixels = [[way, f"{count / 1e6:,.1f}", f"{count / own:.2f} x"] for way, count in self.pixels.items()]
        return [
            (
                f"Levels (chips of {self.chip_px} px)",
                columns,
                levels,
            ),
            (
                f"{self.objects} objects in {self.images} images",
                ["valid at", "share of the objects"],
                [["no level", none], ["one level", one], ["several levels", several]],
            ),
            ("Pixels per epoch", ["way of training", "megapixels", "against chips"], pixels),
        ]

    def warnings(self) -> list[str]:
        """One sentence for each thing that should be changed, with the change."""
        found = []
        thin = self.thin / max(self._countable, 1)
        unfit = 1 - self.covered - thin
        if unfit > TOO_MANY_MISSED:
            low, high = np.quantile(self.missed[self.thin :], [0.05, 0.95])
            found.append(
                f"{unfit:.1%} of the objects (sizes {low:.0f} to {high:.0f} px) are valid at no level and never "
                "learned: set pyramid.levels to auto, or widen train_range_px of the level that makes them 30-250 px"
            )
        if thin > TOO_MANY_MISSED:
            found.append(
                f"{thin:.1%} of the objects have a side below {self.min_side_px:g} px and are never learned: lower "
                "chips.min_side_px, if they are no mistakes"
            )
        return found


def coverage(
    table: AnnotationTable,
    pyramid: Pyramid,
    config: ChipConfig,
    *,
    seed: int = 0,
    proposals: Proposals | None = None,
    negatives: NegativeConfig | None = None,
) -> Coverage:
    """The coverage report of a dataset: objects by level, chips and pixels of the first epoch.

    With ``proposals`` (see ``negative.false_positives``), negative chips are counted too.
    """
    scaled_images = ScaledImages.of(table.sizes_wh, pyramid)
    learnable = ~table.ignored
    valid = valid_objects(table, scaled_images, config.size_rule(pyramid.chip_px))[learnable]
    boxes = table.boxes_xyxy[learnable].astype(np.float64)
    sizes = sqrt_area(boxes)
    thin = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) < config.min_side_px
    count = valid.sum(axis=1)
    missed = (count == 0) & (sizes >= SMALLEST_PX)
    objects = len(count)
    chips = mine(table, pyramid, config, seed=seed, epoch=0, proposals=proposals, negatives=negatives)
    positive = chips.kind == ChipKind.POSITIVE
    per_level = np.bincount(chips.level[positive], minlength=len(pyramid.levels))
    hard = np.bincount(chips.level[chips.kind == ChipKind.NEGATIVE], minlength=len(pyramid.levels))
    return Coverage(
        images=len(table),
        objects=objects,
        ignored=int(table.ignored.sum()),
        chip_px=pyramid.chip_px,
        levels=tuple(
            LevelStats(
                _scale(level),
                (float(low), float(high)),
                float(column.mean()) if objects else 0.0,
                *map(int, chips_here),
            )
            for level, (low, high), column, *chips_here in zip(
                pyramid.levels, pyramid.train_ranges_px(), valid.T, per_level, hard, strict=True
            )
        ),
        valid_in=tuple(float(part.sum() / max(objects, 1)) for part in (count == 0, count == 1, count > 1)),  # type: ignore[arg-type]
        missed=np.concatenate([sizes[missed & thin], sizes[missed & ~thin]]),
        chips={kind.name.lower(): int((chips.kind == kind).sum()) for kind in ChipKind if (chips.kind == kind).any()},
        pixels=_pixels(table, pyramid, scaled_images, chips),
        thin=int((missed & thin).sum()),
        min_side_px=config.min_side_px,
        proposals=None if proposals is None else len(proposals.scores),
    )


def _pixels(
    table: AnnotationTable, pyramid: Pyramid, scaled_images: ScaledImages, chips: ChipTable
) -> dict[str, float]:
    """Padded input pixels of an epoch, for each way of training on the dataset."""
    sizes = table.sizes_wh
    finest = scaled_images.scales.max(axis=1)
    whole = scaled_sizes(sizes, Level.model_validate({"short_px": 800, "long_px": 1333}).scales(sizes))
    return {
        "chips": float(len(chips)) * pyramid.chip_px**2,
        "full pyramid": float(scaled_images.sizes_wh.astype(np.float64).prod(axis=2).sum()),
        "one 800 x 1333 image": float(whole.astype(np.float64).prod(axis=1).sum()),
        "uniform tiles": _tile_pixels(sizes),
        "uniform tiles, finest scale": _tile_pixels(scaled_sizes(sizes, finest)),
    }


def _tile_pixels(sizes_wh: NDArray[np.integer]) -> float:
    """Pixels of 512 px tiles with 20 % overlap."""
    tiles = axis_counts(sizes_wh, TILE_PX, int(TILE_PX * (1 - TILE_OVERLAP)))
    return float(tiles.prod(axis=1).sum()) * TILE_PX**2


def _scale(level: Level) -> str:
    if level.scale is not None:
        return f"x {level.scale:g}"
    sides = [f"short {level.short_px}" if level.short_px else "", f"long {level.long_px}" if level.long_px else ""]
    return ", ".join(side for side in sides if side) + " px"


def _range(range_px: tuple[float, float]) -> str:
    low, high = range_px
    return f"{low:g} and up" if np.isinf(high) else f"{low:g} to {high:g}"
