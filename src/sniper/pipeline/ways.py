"""What ways of training on a dataset cost and show: chips, whole images and uniform tiles."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.boxes import sqrt_area
from sniper.chips.positive import valid_objects
from sniper.chips.stats import SMALLEST_PX, TILE_PX
from sniper.chips.table import ChipTable
from sniper.chips.uniform import uniform_tiles, whole_images
from sniper.chips.verdict import SEEN_CELLS
from sniper.data.table import AnnotationTable
from sniper.inference.windows import pyramid_pixels
from sniper.pyramid import Level, Pyramid
from sniper.recipe import Recipe
from sniper.validity import ScaledImages

USUAL = Level(short_px=800, long_px=1333)


class Way(NamedTuple):
    """One way of training and testing."""

    name: str
    train_megapixels: float  # of an epoch
    test_megapixels: float  # of an image, padded
    seen: float  # share of the objects that it shows at a size within ``verdict.SEEN_CELLS``


class Objects(NamedTuple):
    """The objects of a dataset that can be learned: no crowds, none below 2 px. N of them."""

    rows: NDArray[np.int64]  # (N,) of the table
    image: NDArray[np.int64]  # (N,) row of each one's image
    sizes_px: NDArray[np.float64]  # (N,) sqrt(area), original px

    @classmethod
    def of(cls, table: AnnotationTable) -> "Objects":
        """Those of a table."""
        sizes = sqrt_area(table.boxes_xyxy).astype(np.float64)
        rows = np.flatnonzero(~table.ignored & (sizes >= SMALLEST_PX))
        return cls(rows, table.image_rows_of_objects()[rows].astype(np.int64), sizes[rows])

    def network_px(self, pyramid: Pyramid, image_wh: NDArray[np.integer]) -> NDArray[np.float64]:
        """(N, L) size of each object at each level."""
        scaled: NDArray[np.float64] = self.sizes_px[:, None] * pyramid.scales(image_wh)[self.image]
        return scaled


class Ways:
    """Measures ways of training on one dataset."""

    def __init__(self, table: AnnotationTable, tested_wh: NDArray[np.integer], recipe: Recipe, stride: float) -> None:
        """``tested_wh`` are the (J, 2) sizes of the images to detect in, ``stride`` that of the feature map."""
        self.objects = Objects.of(table)
        self._table, self._tested_wh, self._recipe = table, tested_wh, recipe
        self._seen_px = SEEN_CELLS[0] * stride, SEEN_CELLS[1] * stride

    def chips(self, pyramid: Pyramid, megapixels: float) -> Way:
        """Object-driven chips of ``pyramid``, which take so many megapixels an epoch."""
        rule = self._recipe.chips.size_rule(pyramid.chip_px)
        shown = valid_objects(self._table, ScaledImages.of(self._table.sizes_wh, pyramid), rule)
        test = self._tested(pyramid, self._recipe.inference.window_px)
        return Way("chips", megapixels, test, self._seen(pyramid, shown))

    def whole(self, level: Level, name: str) -> Way:
        """Whole images at one size."""
        pyramid = Pyramid(levels=(level,))
        cut = whole_images(self._table, ScaledImages.of(self._table.sizes_wh, pyramid))
        test = self._tested(pyramid, self._recipe.inference.window_px)
        return Way(f"whole images, {name}", _megapixels(cut), test, self._seen(pyramid, self._shown(cut)))

    def tiles(self) -> Way:
        """Uniform tiles of 512 px at the images' own scale, in training and at test."""
        pyramid = Pyramid(levels=(Level(scale=1.0),), chip_px=TILE_PX)
        sampler = self._recipe.sampler
        cut = uniform_tiles(
            self._table,
            ScaledImages.of(self._table.sizes_wh, pyramid),
            overlap=sampler.tile_overlap,
            min_visible=sampler.tile_min_visible,
        )
        test = self._tested(pyramid, TILE_PX)
        return Way(f"tiles of {TILE_PX} px at 1 x", _megapixels(cut), test, self._seen(pyramid, self._shown(cut)))

    def _tested(self, pyramid: Pyramid, window_px: int) -> float:
        overlap = self._recipe.inference.overlap
        pixels = pyramid_pixels(self._tested_wh, pyramid, window_px=window_px, overlap=overlap)
        return float(pixels.mean()) / 1e6 if len(pixels) else 0.0

    def _shown(self, cut: ChipTable) -> NDArray[np.bool_]:
        """(all objects, 1) whether an object is valid in some window."""
        shown = np.zeros((self._table.num_objects, 1), np.bool_)
        shown[cut.object_rows] = True
        return shown

    def _seen(self, pyramid: Pyramid, shown: NDArray[np.bool_]) -> float:
        sizes, (low, high) = self.objects.network_px(pyramid, self._table.sizes_wh), self._seen_px
        seen = (sizes >= low) & (sizes <= high) & shown[self.objects.rows]
        return float(seen.any(axis=1).mean()) if len(seen) else 0.0


def _megapixels(cut: ChipTable) -> float:
    return float(cut.size_wh.astype(np.float64).prod(axis=1).sum()) / 1e6
