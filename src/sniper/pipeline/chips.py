"""What training would be fed: the coverage report, and chips drawn on their images."""

import json
from pathlib import Path

import numpy as np
from torch import nn

from sniper.boxes import sqrt_area
from sniper.chips.stats import Coverage, coverage
from sniper.data.table import AnnotationTable
from sniper.files import write_bytes, write_text
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import resolve_pyramid, with_detector
from sniper.pipeline.named_files import AUTO, SELF
from sniper.pipeline.previews import draw_previews
from sniper.pipeline.proposal_feed import ProposalFeed, feed_from_file
from sniper.pipeline.tables import Data, table_of
from sniper.pipeline.value_range import files_of, with_value_range
from sniper.recipe import Recipe
from sniper.report.curves import draw_size_histogram


def chip_stats(
    recipe: Recipe | str | Path,
    data: Data,
    *,
    split: str | None = None,
    proposals: Path | str | None = None,
    output: Path | str | None = None,
    detector: nn.Module | None = None,
) -> Coverage:
    """The coverage report of a dataset under a recipe.

    With ``proposals`` (a file of ``sniper propose`` or COCO results), or where the recipe names such a file, negative
    chips are counted too.
    ``detector`` is your own, if training gets one: automatic levels go by what it sees best.
    ``output`` gets ``coverage.json``, the resolved ``recipe.yaml`` and ``sizes.png``, the object sizes under the valid
    ranges.
    """
    recipe, table = _recipe(recipe, detector), table_of(data, split)
    recipe, pyramid = resolve_pyramid(recipe, table)
    feed = _feed(recipe, proposals, table)
    report = coverage(
        table,
        pyramid,
        recipe.chips,
        seed=recipe.train.seed,
        proposals=None if feed is None else feed.at(0),
        negatives=recipe.negatives,
    )
    if output is not None:
        folder = Path(output)
        write_text(folder / "coverage.json", json.dumps(report.as_dict(), indent=1))
        recipe.save(folder / "recipe.yaml")
        ranges = [level.range_px for level in report.levels]
        names = [f"scale {level.scale}" for level in report.levels]
        sizes = sqrt_area(table.boxes_xyxy[~table.ignored])
        write_bytes(folder / "sizes.png", draw_size_histogram(sizes, ranges, names=names))
    return report


def chip_preview(
    recipe: Recipe | str | Path,
    data: Data,
    *,
    output: Path | str,
    split: str | None = None,
    proposals: Path | str | None = None,
    count: int = 8,
    epoch: int = 0,
    detector: nn.Module | None = None,
) -> list[Path]:
    """Draw the chips of ``count`` images, spread over the dataset; the written files.

    With ``proposals``, or where the recipe names a file of them, the negative chips too, around their proposals.
    ``detector`` is your own, if training gets one: automatic levels go by what it sees best.
    """
    source = chip_source(_recipe(recipe, detector), table_of(data, split, needs_images=True), proposals)
    images = len(source.table)
    rows = np.unique(np.linspace(0, images - 1, min(count, images)).round().astype(int))
    return draw_previews(source, rows, Path(output), epoch=epoch)


def chip_source(recipe: Recipe, table: AnnotationTable, proposals: Path | str | None = None) -> ChipSource:
    """The chips of any epoch under a recipe, whose levels and range of values are resolved for ``table``.

    ``proposals``, or the file of them that the recipe names, make negative chips.
    """
    recipe, pyramid = resolve_pyramid(with_value_range(recipe, files_of(table)), table)
    return ChipSource(table, pyramid, recipe, _feed(recipe, proposals, table))


def _feed(recipe: Recipe, proposals: Path | str | None, table: AnnotationTable) -> ProposalFeed | None:
    """The proposals of a file, of the recipe's own, or none: ``auto`` and ``self`` make theirs while training."""
    wanted = proposals if proposals is not None else recipe.negatives.proposals
    return None if wanted in (None, AUTO, SELF) else feed_from_file(str(wanted), table, recipe.negatives)


def _recipe(recipe: Recipe | str | Path, detector: nn.Module | None) -> Recipe:
    given = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    return given if detector is None else with_detector(given, detector)
