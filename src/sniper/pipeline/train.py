"""Train: mine chips each epoch, stream them to the loop, evaluate, keep a run folder that tells its own story."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sniper.chips.epoch import mine
from sniper.chips.table import ChipTable
from sniper.chips.uniform import uniform_tiles, whole_images
from sniper.data.table import AnnotationTable
from sniper.detectors.protocol import Detector
from sniper.errors import DataError, RecipeError
from sniper.files import write_bytes, write_text
from sniper.loader.stream import ChipLoader
from sniper.pipeline.evaluate import Evaluation, evaluate_table, save_evaluation, table_for
from sniper.pipeline.model import build_detector, checkpoint_file, learns_masks, resolve_pyramid
from sniper.pipeline.negatives import PROPOSALS, Log, ProposalFeed, adopt, feed_of_run, make_proposals, resolve_refresh
from sniper.pipeline.sources import BadImage, Skipped, distinct_stems
from sniper.pipeline.tables import evaluation_table_of, training_table_of
from sniper.pixels.decode import read_image
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.report.chips import draw_chips, draw_levels
from sniper.report.curves import draw_training_curves
from sniper.training.checkpoint import CheckpointMeta
from sniper.training.devices import on_main
from sniper.training.finetune import start_from
from sniper.training.loop import TrainResult
from sniper.training.loop import train as run_loop
from sniper.training.run import RunFolder
from sniper.writers.images import save_picture

logger = logging.getLogger("sniper")

PREVIEWS = 4  # images whose chips are drawn into the run folder


@dataclass(frozen=True, slots=True)
class ChipSource:
    """The batches of any epoch, as training asks for them: a pure function of the recipe, the data and the epoch."""

    table: AnnotationTable
    pyramid: Pyramid
    recipe: Recipe
    feed: ProposalFeed | None = None  # proposals for negative chips
    _loaders: list[ChipLoader] = field(default_factory=list, repr=False, compare=False)  # the latest
    _skipped: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def chips(self, epoch: int) -> ChipTable:
        """What training looks at in an epoch."""
        sampler = self.recipe.sampler
        if sampler.method == "chips":
            return mine(
                self.table,
                self.pyramid,
                self.recipe.chips,
                seed=self.recipe.train.seed,
                epoch=epoch,
                proposals=None if self.feed is None else self.feed.at(epoch),
                negatives=self.recipe.negatives,
            )
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
        self.skipped()
        self._loaders[:] = [self._loader(chips, epoch, first_batch, rank, world_size)]
        return self._loaders[0]

    def skipped(self) -> list[tuple[str, str]]:
        """Files that could not be read so far, with the reason of each."""
        for loader in self._loaders:
            self._skipped.update(loader.skipped)
        return list(self._skipped.items())

    def _loader(self, chips: ChipTable, epoch: int, first_batch: int, rank: int, world_size: int) -> ChipLoader:
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
            outlines=learns_masks(self.recipe),
        )


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished (or stopped) training."""

    folder: Path
    result: TrainResult
    recipe: Recipe  # resolved
    evaluation: Evaluation | None  # the last one
    skipped: list[tuple[str, str]]  # files that could not be read, with the reason, for ``on_bad_image: skip``

    @property
    def checkpoint(self) -> Path:
        """The weights to use: ``best``, else the average, else ``last``."""
        return checkpoint_file(self.folder)


def train(
    recipe: Recipe | str | Path | None = None,
    *,
    overrides: Iterable[str] = (),
    detector: nn.Module | None = None,
    table: AnnotationTable | None = None,
    evaluation_table: AnnotationTable | None = None,
    name: str | None = None,
    root: Path | str = "runs",
    resume: Path | str | None = None,
    weights: Path | str | None = None,
    log: Log = logger.info,
) -> TrainedRun:
    """Train a detector on chips.

    Args:
        recipe: a recipe, or a YAML file or shipped name of one; none: with ``resume``, the one of that run.
        overrides: ``a.b=c`` settings on top of a file, a name or a run's recipe.
        detector: your own detector (see ``detectors.protocol``); none: the reference detector of ``recipe.model``.
        table: the training data, if already loaded; none: ``recipe.data.train``.
        evaluation_table: the evaluation data, if already loaded; none: ``recipe.data.evaluate``, if any. Classes that
            only one of the two has do not matter: those of the training data count.
        name: name of the run folder ``<root>/train/<name>``; none: numbered.
        root: folder of the runs.
        resume: a run folder to go on with, exactly if the recipe is the run's; a changed length is kept in it.
        weights: a checkpoint or run folder to start from, in place of ``recipe.weights`` and ``recipe.model.weights``;
            what depends on the classes is taken over for those whose names agree.
        say: told what ``weights`` lack, and about the stages before training, if there are any
            (``negatives.proposals: auto``).

    Raises:
        RecipeError: a setting, or no dataset, or neither a recipe nor a run.
        DataError: a dataset or an image that cannot be used.
        CheckpointError: ``resume`` is no run folder, or its state is damaged or another detector's.
        StorageError: the run folder cannot be written.
    """
    former = RunFolder.open(resume) if resume is not None else None
    recipe = _recipe(recipe, overrides, former)
    if weights is not None:
        recipe = recipe.model_copy(update={"weights": str(weights)})
    on_bad_image: BadImage = recipe.loader.on_bad_image
    train_table = table if table is not None else training_table_of(recipe)
    if evaluation_table is not None:
        evaluation_table = table_for(train_table.class_names, evaluation_table)
    elif recipe.data.evaluate is not None:
        evaluation_table = evaluation_table_of(recipe, train_table.class_names)
    if learns_masks(recipe) and train_table.masks is None:
        raise RecipeError(
            f"the mask branch is on, but the data at {train_table.root} have no masks; "
            "give data with outlines, or set model.masks to false"
        )
    recipe, pyramid = resolve_pyramid(recipe, train_table)
    recipe = resolve_refresh(recipe, lambda fixed: len(ChipSource(train_table, pyramid, fixed).chips(0)), log)
    fresh = former is None or not former.state.is_file()  # else its state has all weights
    if detector is None:
        torch.manual_seed(recipe.train.seed)  # its random weights too are the seed's
        pretrained = fresh and recipe.weights is None
        detector = build_detector(recipe, len(train_table.class_names), pretrained=pretrained)
    elif not isinstance(detector, Detector):
        raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")
    start = None
    if fresh and recipe.weights is not None:
        start = start_from(detector, checkpoint_file(recipe.weights), train_table.class_names)
        on_main(lambda: log(start.sentence()))
    elif fresh and recipe.original is not None:
        warning = (
            f"{recipe.network} starts from random weights, which its first layers keep; set weights to a checkpoint"
        )
        on_main(lambda: log(warning))

    # Workers that are not forked would each get a copy of the table.
    shared = train_table.share() if recipe.loader.shares_table else train_table
    proposals = None
    if recipe.negatives.proposals is not None and (former is None or not (former.path / PROPOSALS).is_file()):
        proposals = make_proposals(
            recipe, detector, shared, pyramid, lambda brief: ChipSource(shared, pyramid, brief), root=root, log=log
        )
    if former is None:
        run = on_main(lambda: RunFolder.create("train", name, root=root, recipe=recipe.to_yaml()))
    else:
        run = former
        on_main(lambda: _tell_changes(run, recipe))
    if start is not None:
        on_main(lambda: write_text(run.log, f"{start.sentence()}\n"))
    if proposals is not None:
        on_main(lambda: adopt(proposals, run, shared))
    feed = feed_of_run(run, recipe, detector, shared, pyramid) if recipe.negatives.proposals is not None else None
    source = ChipSource(shared, pyramid, recipe, feed)
    if former is None:
        on_main(lambda: _preview(source, run.path))
    evaluations: list[Evaluation] = []

    def evaluate(trained: nn.Module) -> dict[str, float]:
        assert evaluation_table is not None
        place, settings = next(trained.parameters()).device, (recipe.inference, recipe.evaluation)
        done = evaluate_table(
            trained, evaluation_table, pyramid, *settings, device=place, on_bad_image=on_bad_image, by_ranks=True
        )
        evaluations[:] = [done]
        return done.as_dict()

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
    # Not before: a recipe that the state does not fit must not spoil the folder.
    on_main(lambda: write_text(run.recipe, recipe.to_yaml()) if former else None)
    on_main(lambda: _finish(run.path, evaluations, evaluation_table))
    skipped = source.skipped() + [file for done in evaluations for file in done.skipped]
    return TrainedRun(run.path, result, recipe, evaluations[0] if evaluations else None, list(dict.fromkeys(skipped)))


def _recipe(recipe: Recipe | str | Path | None, overrides: Iterable[str], former: RunFolder | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None and former is None:
        raise RecipeError("training needs a recipe, or a run to resume; 'sniper models' lists the shipped recipes")
    return Recipe.load(recipe if recipe is not None else former.recipe, overrides)  # type: ignore[union-attr]


def _tell_changes(run: RunFolder, recipe: Recipe) -> None:
    """One line where a run goes on with other chips or another model. The loop tells about its own settings."""
    before = Recipe.load(run.recipe)
    parts = ("pyramid", "chips", "negatives", "sampler", "loader", "augment", "model", "original")
    changed = [part for part in parts if getattr(before, part) != getattr(recipe, part)]
    if changed:
        logger.warning("resuming with other settings of %s, no longer the same run", ", ".join(changed))


def draw_previews(
    source: ChipSource, rows: NDArray[np.integer], folder: Path, *, epoch: int = 0, on_bad_image: BadImage = "stop"
) -> list[Path]:
    """Draw the chips of some images into ``folder``: all levels on the photo, and one panel a level."""
    chips, table = source.chips(epoch), source.table
    written, skipped = [], Skipped()
    stems = distinct_stems(Path(table.file_name(row)) for row in map(int, rows))
    for row, stem in zip(map(int, rows), stems, strict=True):
        width, height = table.sizes_wh[row].tolist()
        path = table.image_path(row)
        try:
            pixels = read_image(path, size_wh=(width, height), image_id=int(table.image_ids[row]))
        except DataError as error:
            skipped.handle(str(path), error, on_bad_image)
            continue
        for name, draw in (("chips", draw_chips), ("levels", draw_levels)):
            written.append(folder / f"{stem}-{name}.jpg")
            proposals = None if source.feed is None else source.feed.at(epoch)
            save_picture(written[-1], draw(pixels, table, row, chips, proposals=proposals))
    return written


def _preview(source: ChipSource, folder: Path) -> None:
    """Chips of the busiest images, drawn: what the detector is about to be shown."""
    counts = np.bincount(source.chips(0).image_index, minlength=len(source.table))
    busiest = np.argsort(-counts, kind="stable")[:PREVIEWS]
    draw_previews(source, busiest, folder / "previews", on_bad_image=source.recipe.loader.on_bad_image)


def _finish(folder: Path, evaluations: list[Evaluation], table: AnnotationTable | None) -> None:
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        write_bytes(folder / "curves.png", draw_training_curves(metrics))
    if evaluations and table is not None:
        save_evaluation(evaluations[0], table, folder)
