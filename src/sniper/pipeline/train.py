"""Train: mine chips each epoch, stream them to the loop, evaluate, keep a run folder that tells its own story."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sniper.chips.epoch import mine
from sniper.chips.table import ChipTable
from sniper.chips.uniform import uniform_tiles, whole_images
from sniper.data.images import read_image
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.detectors.protocol import Detector
from sniper.detectors.sniper import build_sniper
from sniper.errors import DataError, RecipeError
from sniper.files import write_bytes
from sniper.loader.stream import ChipLoader
from sniper.pipeline.evaluate import Evaluation, evaluate_table, save_evaluation
from sniper.pipeline.model import resolve_pyramid
from sniper.recipe import Recipe
from sniper.report.chips import draw_chips, draw_levels
from sniper.report.curves import draw_training_curves
from sniper.report.layout import save_picture
from sniper.scales import Pyramid
from sniper.training.checkpoint import CheckpointMeta
from sniper.training.devices import on_main
from sniper.training.loop import TrainResult
from sniper.training.loop import train as run_loop
from sniper.training.run import RunFolder

log = logging.getLogger("sniper")

PREVIEWS = 4  # images whose chips are drawn into the run folder


@dataclass(frozen=True, slots=True)
class ChipSource:
    """The batches of any epoch, as training asks for them: a pure function of the recipe, the data and the epoch."""

    table: AnnotationTable
    pyramid: Pyramid
    recipe: Recipe

    def chips(self, epoch: int) -> ChipTable:
        """What training looks at in an epoch."""
        sampler = self.recipe.sampler
        if sampler.method == "chips":
            return mine(self.table, self.pyramid, self.recipe.chips, seed=self.recipe.train.seed, epoch=epoch)
        if sampler.method == "whole":
            return whole_images(self.table, self.pyramid)
        return uniform_tiles(
            self.table, self.pyramid, overlap=sampler.tile_overlap, min_visible=sampler.tile_min_visible
        )

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> ChipLoader:
        """Batches of an epoch for one process."""
        chips = self.chips(epoch)
        if len(chips) == 0:
            raise DataError(
                f"{self.table.root}: no chips can be cut: none of the {self.table.num_objects} objects is "
                "valid at any level; see 'sniper chips stats' or set pyramid.levels to auto"
            )
        return ChipLoader(
            self.table,
            chips,
            self.recipe.loader,
            self.recipe.augment,
            seed=self.recipe.train.seed,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            first_batch=first_batch,
        )


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished (or stopped) training."""

    folder: Path
    result: TrainResult
    recipe: Recipe  # resolved
    evaluation: Evaluation | None  # the last one

    @property
    def checkpoint(self) -> Path:
        """The weights to use: ``best``, else ``last``."""
        best = self.folder / "best.safetensors"
        return best if best.is_file() else self.folder / "last.safetensors"


def train(
    recipe: Recipe | str | Path,
    *,
    overrides: Iterable[str] = (),
    detector: nn.Module | None = None,
    table: AnnotationTable | None = None,
    evaluation_table: AnnotationTable | None = None,
    name: str | None = None,
    root: Path | str = "runs",
    resume: Path | str | None = None,
) -> TrainedRun:
    """Train a detector on chips.

    Args:
        recipe: a recipe, or a YAML file or shipped name of one.
        overrides: ``a.b=c`` settings on top of a file or name.
        detector: your own detector (see ``detectors.protocol``); none: the reference detector of ``recipe.model``.
        table: the training data, if already loaded; none: ``recipe.data.train``.
        evaluation_table: the evaluation data, if already loaded; none: ``recipe.data.evaluate``, if any.
        name: name of the run folder ``<root>/train/<name>``; none: numbered.
        root: folder of the runs.
        resume: a run folder to go on with; its own recipe is used, and ``recipe`` may only lengthen it.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe, overrides)
    train_table = table if table is not None else _load(recipe, "train")
    if evaluation_table is None and recipe.data.evaluate is not None:
        evaluation_table = _load(recipe, "evaluate", train_table.class_names)
    recipe, pyramid = resolve_pyramid(recipe, train_table)
    if detector is None:
        detector = build_sniper(recipe.model, len(train_table.class_names))
    elif not isinstance(detector, Detector):
        raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")

    if resume is None:
        run = on_main(lambda: RunFolder.create("train", name, root=root, recipe=recipe.to_yaml()))
    else:
        run = RunFolder.open(resume)
    source = ChipSource(train_table, pyramid, recipe)
    on_main(lambda: _preview(source, run.path))
    evaluations: list[Evaluation] = []

    def evaluate(trained: nn.Module) -> dict[str, float]:
        assert evaluation_table is not None
        device = next(trained.parameters()).device
        done = evaluate_table(trained, evaluation_table, pyramid, recipe.inference, recipe.evaluation, device=device)
        evaluations[:] = [done]
        return done.result.as_dict()

    metadata = CheckpointMeta(
        recipe=recipe.model_dump(mode="json"),
        class_names=train_table.class_names,
        class_ids=tuple(int(i) for i in train_table.class_ids),
    )
    result = run_loop(
        detector,
        source,
        recipe.train,
        run,
        evaluate=evaluate if evaluation_table is not None else None,
        resume=resume is not None,
        metadata=metadata,
    )
    on_main(lambda: _finish(run.path, evaluations, evaluation_table))
    return TrainedRun(run.path, result, recipe, evaluations[0] if evaluations else None)


def _load(recipe: Recipe, part: str, classes: tuple[str, ...] | None = None) -> AnnotationTable:
    path = getattr(recipe.data, part)
    if path is None:
        raise RecipeError(
            f"data.{part} is not set: name a dataset, for example --set data.{part}=path/to/instances.json"
        )
    return load_dataset(
        path,
        split=getattr(recipe.data, f"{part}_split"),
        format=recipe.data.format,
        image_root=recipe.data.image_root,
        classes=classes or recipe.data.classes,
    )


def draw_previews(source: ChipSource, rows: NDArray[np.integer], folder: Path, *, epoch: int = 0) -> list[Path]:
    """Draw the chips of some images into ``folder``: all levels on the photo, and one panel a level."""
    chips = source.chips(epoch)
    written = []
    for row in map(int, rows):
        size = tuple(int(side) for side in source.table.sizes_wh[row])
        pixels = read_image(source.table.image_path(row), size_wh=size, image_id=int(source.table.image_ids[row]))  # type: ignore[arg-type]
        stem = Path(source.table.file_name(row)).stem
        for name, draw in (("chips", draw_chips), ("levels", draw_levels)):
            written.append(folder / f"{stem}-{name}.jpg")
            save_picture(written[-1], draw(pixels, source.table, row, chips))
    return written


def _preview(source: ChipSource, folder: Path) -> None:
    """Chips of the busiest images, drawn: what the detector is about to be shown."""
    counts = np.bincount(source.chips(0).image_index, minlength=len(source.table))
    draw_previews(source, np.argsort(-counts, kind="stable")[:PREVIEWS], folder / "previews")


def _finish(folder: Path, evaluations: list[Evaluation], table: AnnotationTable | None) -> None:
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        write_bytes(folder / "curves.png", draw_training_curves(metrics))
    if evaluations and table is not None:
        save_evaluation(evaluations[0], table, folder)
