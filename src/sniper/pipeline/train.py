"""Train: mine chips each epoch, stream them to the loop, evaluate, keep a run folder that tells its own story."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from sniper.data.table import AnnotationTable
from sniper.detectors.traits import DetectorTraits, traits_of
from sniper.errors import RecipeError
from sniper.evaluation.config import ProtocolName
from sniper.files import write_text
from sniper.pipeline.batch_memory import require_memory
from sniper.pipeline.bounds import warn_of_bounds
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import group_classes, resolve_pyramid, seeded_detector, with_detector
from sniper.pipeline.evaluate import Evaluation
from sniper.pipeline.file_check import check_files
from sniper.pipeline.finishing import finish
from sniper.pipeline.named_files import with_absolute_paths
from sniper.pipeline.negatives import Log, feed_of_run, proposals_for, renew_proposals, resolve_refresh
from sniper.pipeline.previews import draw_busiest
from sniper.pipeline.short_forms import short_overrides
from sniper.pipeline.sources import BadImage
from sniper.pipeline.step_chips import launch_of, with_rate_of_step
from sniper.pipeline.tables import Data, evaluation_table_of, require_objects, table_for, training_table_of, words_of
from sniper.pipeline.training_evaluation import TrainingEvaluation
from sniper.pipeline.value_range import files_of, with_value_range
from sniper.recipe import Recipe
from sniper.training.checkpoint import CheckpointMeta
from sniper.training.devices import meet, on_main
from sniper.training.finetune import start_from
from sniper.training.loop import TrainResult
from sniper.training.loop import train as run_loop
from sniper.training.run import RunFolder, require_name
from sniper.training.run_lock import RunLock
from sniper.training.weights_file import checkpoint_file

logger = logging.getLogger("sniper")


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
    data: Data | None = None,
    val: Data | None = None,
    negatives: str | None = None,
    weights: Path | str | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    device: str | None = None,
    seed: int | None = None,
    on_bad_image: BadImage | None = None,
    protocols: tuple[ProtocolName, ...] | None = None,
    detector: nn.Module | None = None,
    name: str | None = None,
    root: Path | str = "runs",
    resume: Path | str | None = None,
    profile: bool = False,
    log: Log = logger.info,
) -> TrainedRun:
    """Train a detector on chips.

    Args:
        recipe: a recipe, or a YAML file or shipped name of one; none: with ``resume``, the one of that run.
        overrides: ``a.b=c`` settings on top of it.
        data: the training data, by path, as a ``DataSource`` that says more, or loaded; none: ``recipe.data.train``.
        val: the evaluation data, likewise; none: ``recipe.data.evaluate``, if any. Classes that only one of the two has
            do not matter: those of the training data count.
        negatives: ``auto``, ``self`` or a file of proposals: ``negatives.proposals``.
        weights: a checkpoint or run folder to start from, in place of ``recipe.weights`` and ``recipe.model.weights``;
            what depends on the classes is taken over for those whose names agree.
        epochs: length in epochs: ``train.epochs``.
        minutes: length in minutes of training: ``train.minutes``.
        batch: chips of a batch on each device: ``loader.batch_size``.
        device: ``auto`` or ``cpu``: ``train.device``.
        seed: of everything random: ``train.seed``.
        on_bad_image: ``stop`` at an image that cannot be read, or ``skip`` and list it: ``loader.on_bad_image``.
        protocols: how detections are measured, ``coco``, ``voc``, ...: ``evaluation.protocols``.
        detector: your own detector (see ``detectors.protocol``); none: the one that ``recipe.model`` names.
        name: name of the run folder ``<root>/train/<name>``; none: numbered.
        root: folder of the runs.
        resume: a run folder to go on with, exactly if the recipe is the run's; a changed length is kept in it.
        profile: write a trace of some steps into the run folder (``trace.json``, Chrome format), and tell their shares
            in ``result.shares``.
        log: told what ``weights`` lack, where the run trains and in how many processes, and about the stages before
            training, if there are any (``negatives.proposals: auto``).

    Raises:
        RecipeError: a setting, or no dataset, or neither a recipe nor a run, or a batch that no memory holds.
        DataError: a dataset or an image that cannot be used.
        CheckpointError: ``resume`` is no run folder, or its state is damaged or another detector's.
        StorageError: the run folder cannot be written, or another training is using it.
    """
    if resume is None:
        require_name(name, f"{root}/train")
    former = RunFolder.open(resume) if resume is not None else None
    words = short_overrides(
        **words_of(data, val), negatives=negatives, weights=weights, epochs=epochs, minutes=minutes,
        batch=batch, device=device, seed=seed, on_bad_image=on_bad_image, protocols=protocols,
    )  # fmt: skip
    recipe = with_absolute_paths(_recipe(recipe, [*overrides, *words], former))
    meet(recipe.train)
    with RunLock() as lock:
        if former is not None:
            on_main(lambda: lock.take(former.path))
        place = _Place(former, name, root, lock)
        return _train(recipe, detector, place, lambda given: _datasets(given, data, val), log, profile=profile)


class _Place(NamedTuple):
    """Where a run is, or will be."""

    former: RunFolder | None  # of one that goes on
    name: str | None
    root: Path | str
    lock: RunLock


def _train(
    recipe: Recipe,
    detector: nn.Module | None,
    place: _Place,
    load: Callable[[Recipe], "_Datasets"],
    log: Log,
    *,
    profile: bool,
) -> TrainedRun:
    # Resolve and build: settings and data, the detector, and what follows from both, written out.
    former = place.former
    datasets = load(recipe)
    on_main(
        lambda: check_files(
            *datasets,
            whole_pixels=recipe.loader.whole_megapixels * 1e6,
            on_bad_image=recipe.loader.on_bad_image,
            log=log,
        )
    )
    recipe = with_value_range(recipe, files_of(datasets.train))
    class_names = datasets.train.class_names
    fresh = former is None or not former.state.is_file()  # else its state has all weights
    if detector is None:
        detector = seeded_detector(recipe, class_names, pretrained=fresh and recipe.weights is None)
    recipe, traits = with_detector(recipe, detector), traits_of(detector)
    _require_masks(traits, datasets.train)
    recipe, pyramid = resolve_pyramid(recipe, datasets.train, traits)
    source = ChipSource(datasets.train, pyramid, recipe)
    require_memory(detector, source)
    on_main(lambda: warn_of_bounds(recipe, pyramid, datasets.evaluate or datasets.train))
    recipe = resolve_refresh(recipe, lambda: len(source.chips(0)), log)
    recipe = with_rate_of_step(recipe, log)

    # Load: first weights, and proposals for negative chips.
    told = _load(recipe, detector, class_names, log) if fresh else None
    if fresh:
        group_classes(detector, recipe, class_names)
    made = proposals_for(
        recipe, detector, datasets.train, pyramid, lambda brief: ChipSource(datasets.train, pyramid, brief), former,
        root=place.root, log=log,
    )  # fmt: skip

    # The run folder, and what it shows before training.
    run = former or on_main(
        lambda: RunFolder.create("train", place.name, root=place.root, recipe=recipe.to_yaml(), lock=place.lock)
    )
    on_main(lambda: _begin_log(run, recipe, former, told))
    feed = None
    if recipe.negatives.proposals is not None:
        feed = feed_of_run(run, recipe, datasets.train, made)
    source = replace(source, recipe=recipe, feed=feed)
    on_main(lambda: log(launch_of(recipe)))
    if fresh:
        on_main(lambda: draw_busiest(source, run.path / "previews"))

    # Run.
    def before_epoch(epoch: int, trained: nn.Module) -> None:
        if feed is not None:
            renew_proposals(feed, epoch, trained, recipe, datasets.train, pyramid)

    evaluation = None if datasets.evaluate is None else TrainingEvaluation(datasets.evaluate, pyramid, recipe)
    result = run_loop(
        detector,
        source,
        recipe.train,
        run,
        before_epoch=before_epoch,
        evaluate=None if evaluation is None else evaluation.evaluate,
        rehearsal=None if evaluation is None else evaluation.rehearse,
        resume=former is not None,
        profile=profile,
        metadata=CheckpointMeta(
            recipe=recipe.model_dump(mode="json"),
            class_names=class_names,
            class_ids=tuple(int(i) for i in datasets.train.class_ids),
        ),
    )

    latest = finish(run, source, result, evaluation)
    skipped = source.skipped() + ([] if latest is None else latest.skipped)
    return TrainedRun(run.path, result, recipe, latest, list(dict.fromkeys(skipped)))


class _Datasets(NamedTuple):
    """What is learned from, and what is measured on."""

    train: AnnotationTable
    evaluate: AnnotationTable | None


def _recipe(recipe: Recipe | str | Path | None, overrides: list[str], former: RunFolder | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe.changed(overrides)
    place = recipe if recipe is not None or former is None else former.recipe
    if place is None:
        raise RecipeError("training needs a recipe, or a run to resume; 'sniper models' lists the shipped recipes")
    return Recipe.load(place, overrides)


def _datasets(recipe: Recipe, data: Data | None, val: Data | None) -> _Datasets:
    """Those given as tables, else those that the recipe names."""
    train = data if isinstance(data, AnnotationTable) else training_table_of(recipe)
    agnostic = recipe.data.class_agnostic
    if agnostic and isinstance(data, AnnotationTable):
        train = data.of_one_class()
    evaluate = None
    if isinstance(val, AnnotationTable):
        evaluate = table_for(train.class_names, val, class_agnostic=agnostic)
    elif recipe.data.evaluate is not None:
        evaluate = evaluation_table_of(recipe, train.class_names)
    require_objects(train, "to learn from")
    if evaluate is not None:
        require_objects(evaluate, "to evaluate on")
    # Workers that are not forked would each get a copy of the table.
    return _Datasets(train.share() if recipe.loader.shares_table else train, evaluate)


def _require_masks(traits: DetectorTraits, train: AnnotationTable) -> None:
    if traits.predicts_masks and train.masks is None:
        raise RecipeError(
            f"the mask branch is on, but the data at {train.root} have no masks; "
            "give data with outlines, or set model.masks to false"
        )


def _load(recipe: Recipe, detector: nn.Module, class_names: tuple[str, ...], log: Log) -> str | None:
    """Load ``recipe.weights`` into the detector; what the run's log should say of it."""
    if recipe.weights is not None:
        start = start_from(detector, checkpoint_file(recipe.weights), class_names)
        on_main(lambda: log(start.sentence()))
        return start.sentence()
    if recipe.model.kind == "original":
        network = recipe.model.network
        warning = f"{network} starts from random weights, which its first layers keep; set weights to a checkpoint"
        on_main(lambda: log(warning))
    return None


def _begin_log(run: RunFolder, recipe: Recipe, former: RunFolder | None, told: str | None) -> None:
    """What a run's log says before the first step: changes of one that goes on, and where its weights are from."""
    if former is not None:
        _tell_changes(run, recipe)
    if told is not None:
        write_text(run.log, f"{told}\n")


def _tell_changes(run: RunFolder, recipe: Recipe) -> None:
    """One line where a run goes on with other chips or another model. The loop tells about its own settings."""
    before = Recipe.load(run.recipe)
    parts = ("pyramid", "chips", "negatives", "sampler", "loader", "augment", "model")
    changed = [part for part in parts if getattr(before, part) != getattr(recipe, part)]
    if changed:
        logger.warning("resuming with other settings of %s, no longer the same run", ", ".join(changed))
