"""Before a training: levels and why, what ways of training cost and show, time and memory, and what to choose."""

from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sniper.chips.positive import valid_objects
from sniper.chips.stats import Coverage, coverage
from sniper.chips.verdict import SEEN_CELLS, Facts, Verdict, needed_long_px, verdict, whole_long_px
from sniper.data.source import DataSource
from sniper.data.table import AnnotationTable
from sniper.detectors.traits import COMFORTABLE_CELLS, DetectorTraits, promised_traits, traits_of
from sniper.errors import DataError
from sniper.evaluation.size_response import SizeResponse
from sniper.pipeline.bounds import hiding_bounds
from sniper.pipeline.budget import Budget, Gpus, here, projected
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import resolve_pyramid, seeded_detector, with_detector
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.plan_report import QUANTILES, Plan, PlannedLevel
from sniper.pipeline.size_response import measure_response
from sniper.pipeline.tables import Data, table_of
from sniper.pipeline.ways import USUAL, Objects, Way, Ways
from sniper.pyramid import Level, Pyramid
from sniper.recipe import Recipe
from sniper.structures import Batch
from sniper.training.calibration import Calibration, calibrate
from sniper.validity import ScaledImages

MAX_SECONDS = 30.0  # of a calibration


def plan(
    data: Data,
    *,
    val: Data | None = None,
    recipe: Recipe | str | Path | None = None,
    checkpoint: Path | str | Model | None = None,
    split: str | None = None,
    gpus: int | None = None,
    gpu_memory: float | None = None,
    minutes: float | None = None,
    calibration_s: float = 20.0,
    detector: nn.Module | None = None,
) -> Plan:
    """What training on a dataset would look at, cost and take, and whether chips, tiles or whole images suit it.

    Args:
        data: what would be trained on.
        val: what would be tested on: test pixels are of its images; none: of those of ``data``.
        recipe: whose levels, detector and training are planned; none: that of the checkpoint, with levels derived
            anew, or else ``mobilenetv2``.
        checkpoint: a detector whose response to sizes is measured, on some images of ``val``, or of ``data``: levels
            that are derived bring objects to the smallest size that it sees well.
        split: part of ``data``.
        gpus: also project to so many GPUs.
        gpu_memory: of each GPU, in GB; alone it means one GPU.
        minutes: tell what these buy; none: how long the recipe's own length takes.
        calibration_s: seconds that training steps on this machine are measured for; 0: they are not.
        detector: your own, if training gets one; it is trained for these steps.

    Raises:
        DataError: the dataset cannot be used, or has no objects to learn.
        RecipeError: a setting is wrong.
    """
    table = table_of(data, split)
    tested = table if val is None else _tested(val)
    model = checkpoint if checkpoint is None or isinstance(checkpoint, Model) else load_model(checkpoint)
    recipe, response = _recipe(recipe, model), None
    if model is not None:
        response = _response(model, tested, recipe)
        if response.comfortable_px is not None and recipe.pyramid.object_px == "auto":
            recipe = recipe.changed([f"pyramid.object_px={response.comfortable_px:.0f}"])
    if detector is not None:
        recipe = with_detector(recipe, detector)
    traits = promised_traits(recipe.model) if detector is None else traits_of(detector)
    derived = recipe.pyramid.levels == "auto"
    recipe, pyramid = resolve_pyramid(recipe, table, traits)
    report = coverage(table, pyramid, recipe.chips, seed=recipe.train.seed)
    advice = _advised(table, tested, recipe, pyramid, report, traits)

    source, measured = ChipSource(table, pyramid, recipe), _Measured(None, "calibration is off")
    if calibration_s > 0:
        detector = detector or seeded_detector(recipe, table.class_names, pretrained=False)
        measured = _measured(detector, source, min(calibration_s, MAX_SECONDS))
    given = None if gpus is None and gpu_memory is None else Gpus(gpus or 1, gpu_memory)
    return Plan(
        recipe=recipe,
        derived=derived,
        object_px=traits.comfortable_px if recipe.pyramid.object_px == "auto" else recipe.pyramid.object_px,
        seen_px=(SEEN_CELLS[0] * _stride(traits), SEEN_CELLS[1] * _stride(traits)),
        coverage=report,
        sizes_px=_quantiles(advice.objects.sizes_px),
        levels=_levels(table, pyramid, report, recipe, advice.objects),
        ways=advice.ways,
        verdict=advice.verdict,
        settings=advice.settings,
        bounds=tuple(hiding_bounds(recipe, pyramid, tested)),
        response=response,
        calibration=measured.calibration,
        not_calibrated=measured.reason,
        budgets=_budgets(measured.calibration, len(source.chips(0)), recipe, minutes, given),
    )


def _recipe(recipe: Recipe | str | Path | None, model: Model | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None or model is None:
        return Recipe.load("mobilenetv2" if recipe is None else recipe)
    return own_recipe(model)


def own_recipe(model: Model) -> Recipe:
    """What a checkpoint was trained with; its levels, derived for a size that is to be measured now, are left open."""
    return model.recipe.changed(["pyramid.levels=auto", "pyramid.object_px=auto", "pyramid.chip_px=auto"])


def _response(model: Model, table: AnnotationTable, recipe: Recipe) -> SizeResponse:
    own = table.with_classes(model.class_names, missing="allow")
    return measure_response(
        model.backend, own, model.recipe.inference, seed=recipe.train.seed, sample_map=model.recipe.data.sample_map
    )


def _tested(val: Data) -> AnnotationTable:
    """What would be tested on: the split that evaluation means, where none is named."""
    if isinstance(val, AnnotationTable):
        return val
    return (val if isinstance(val, DataSource) else DataSource(val)).open("evaluate", masks=False)


class _Advice(NamedTuple):
    """Ways of training on a dataset, and the one that is advised."""

    objects: Objects
    ways: tuple[Way, ...]
    verdict: Verdict
    settings: tuple[str, ...]


def _advised(
    table: AnnotationTable,
    tested: AnnotationTable,
    recipe: Recipe,
    pyramid: Pyramid,
    report: Coverage,
    traits: DetectorTraits,
) -> _Advice:
    stride = _stride(traits)
    ways = Ways(table, tested.sizes_wh, recipe, stride)
    objects = ways.objects
    if not len(objects.rows):
        raise DataError(f"{table.root}: there is no object to learn; a plan needs one of 2 px or more that is no crowd")
    one_level = all(level.train_range_px == (0.0, None) for level in pyramid.levels)
    level_long_px = float(np.median(table.sizes_wh.max(axis=1) * pyramid.scales(table.sizes_wh)[:, 0]))
    needed_px = needed_long_px(objects.sizes_px, table.sizes_wh.max(axis=1)[objects.image], stride)
    long_px = whole_long_px(one_level, pyramid.chip_px, level_long_px, needed_px)
    level = Level(long_px=long_px, max_scale=recipe.pyramid.max_scale)

    chips = ways.chips(pyramid, report.pixels["chips"] / 1e6)
    whole = ways.whole(level, f"long side {long_px} px")
    decided = verdict(
        Facts(
            one_level=one_level,
            chip_px=pyramid.chip_px,
            level_long_px=level_long_px,
            needed_long_px=needed_px,
            chip_share=report.pixels["chips"] / report.pixels["full pyramid"],
            seen_by_chips=chips.seen,
            seen_by_whole=whole.seen,
            chips_megapixels=chips.train_megapixels,
            whole_megapixels=whole.train_megapixels,
        )
    )
    settings: tuple[str, ...] = ()
    if decided.method != "chips":
        settings = (f"sampler.method={decided.method}",)
    if decided.method == "whole":
        image_pixels = whole.train_megapixels * 1e6 / max(len(table), 1)
        batch = max(round(recipe.loader.batch_size * pyramid.chip_px**2 / image_pixels), 1)  # as many pixels a step
        settings += (
            f"pyramid.levels=[{{long_px: {long_px}, max_scale: {recipe.pyramid.max_scale:g}}}]",
            f"loader.batch_size={batch}",
        )
    return _Advice(objects, (chips, whole, ways.whole(USUAL, "800 x 1333 px"), ways.tiles()), decided, settings)


def _stride(traits: DetectorTraits) -> float:
    """Of the feature map, or what the size that the detector sees best says of it."""
    return traits.stride or traits.comfortable_px / COMFORTABLE_CELLS


def _levels(
    table: AnnotationTable, pyramid: Pyramid, report: Coverage, recipe: Recipe, objects: Objects
) -> tuple[PlannedLevel, ...]:
    rule = recipe.chips.size_rule(pyramid.chip_px)
    valid = valid_objects(table, ScaledImages.of(table.sizes_wh, pyramid), rule)[objects.rows]
    sizes = objects.network_px(pyramid, table.sizes_wh)
    return tuple(
        PlannedLevel(stats.scale, stats.range_px, stats.valid_share, stats.chips, _quantiles(sizes[here, level]))
        for level, (stats, here) in enumerate(zip(report.levels, valid.T, strict=True))
    )


def _quantiles(sizes_px: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.quantile(sizes_px, QUANTILES).tolist()) if len(sizes_px) else ()


class _Measured(NamedTuple):
    """A calibration, or why there is none."""

    calibration: Calibration | None
    reason: str | None


def _measured(detector: nn.Module, source: ChipSource, seconds: float) -> _Measured:
    """Steps on the first chips of an epoch; images that cannot be read are a reason for none, and no error."""

    def batches_of(chips: int) -> Generator[Batch]:
        # A shuffle buffer would have to fill first.
        loader = source.recipe.loader.model_copy(update={"batch_size": chips, "shuffle_chips": chips})
        recipe = source.recipe.model_copy(update={"loader": loader})
        yield from ChipSource(source.table, source.pyramid, recipe).epoch(0, 0, 0, 1)

    recipe = source.recipe
    try:
        return _Measured(calibrate(detector, batches_of, recipe.train, recipe.loader.batch_size, seconds=seconds), None)
    except DataError as error:
        return _Measured(None, str(error))


def _budgets(
    calibration: Calibration | None, chips: int, recipe: Recipe, minutes: float | None, gpus: Gpus | None
) -> tuple[Budget, ...]:
    if calibration is None:
        return ()
    own = here(calibration, chips, recipe.train, minutes)
    if gpus is None:
        return (own,)
    return own, projected(calibration, chips, recipe.train, minutes, gpus)
