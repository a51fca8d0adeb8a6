"""Where a run's proposals come from: made once for data and settings, kept with the run, renewed while it trains."""

import copy
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from sniper.backends.torch import TorchBackend
from sniper.data.detection_files import read_details, read_proposals, save_detections
from sniper.data.table import AnnotationTable
from sniper.errors import CheckpointError, RecipeError, StoppedError
from sniper.files import replacing
from sniper.nn.weights_digest import weights_digest
from sniper.pipeline.keys import first_stage_key
from sniper.pipeline.named_files import AUTO, SELF
from sniper.pipeline.proposal_feed import ProposalFeed
from sniper.pipeline.propose import Extraction, extract, extraction, finish, is_done
from sniper.pipeline.step_chips import chips_a_step
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.training.checkpoint import CheckpointMeta, load_into, load_weights, save_weights
from sniper.training.devices import on_main, process_device, this_process, wait_for_everyone
from sniper.training.first_stage import FirstStage
from sniper.training.loop import ChipSource
from sniper.training.loop import train as run_loop
from sniper.training.run import RunFolder

logger = logging.getLogger("sniper")

LEARNED = 2 / 3  # of a training, after which it is asked: before, it lacks objects more than background
PROPOSALS = "proposals.safetensors"  # in a run folder: what its negative chips are made from
Log = Callable[[str], None]


class SourceOf(Protocol):
    """Makes the chip source of a recipe that has no negatives."""

    def __call__(self, recipe: Recipe) -> ChipSource: ...


def resolve_refresh(recipe: Recipe, chips_of_epoch: Callable[[], int], log: Log) -> Recipe:
    """The recipe with the epoch at which a detector is first asked itself written out, if that is not given.

    ``chips_of_epoch`` counts the chips of the first epoch, and is called only where the count matters.

    Raises:
        RecipeError: the training's length is given in minutes.
    """
    negatives, config = recipe.negatives, recipe.train
    if negatives.proposals != SELF or negatives.refresh_epochs is not None:
        return recipe
    if config.epochs is not None:
        epochs = config.epochs
    elif config.steps is not None:
        epochs = config.steps * chips_a_step(recipe) / max(chips_of_epoch(), 1)
    else:
        raise RecipeError(
            "negatives.proposals: self needs negatives.refresh_epochs, the epochs after which the detector is asked, "
            "where train.minutes is the length"
        )
    every = max(1, round(LEARNED * epochs))
    asked = f"after {every} of {epochs:.1f} epochs" if every < epochs else f"never: {epochs:.1f} epochs are too short"
    on_main(lambda: log(f"negatives: the detector is asked {asked}"))
    return recipe.model_copy(update={"negatives": negatives.model_copy(update={"refresh_epochs": every})})


def proposals_for(
    recipe: Recipe,
    detector: nn.Module,
    table: AnnotationTable,
    pyramid: Pyramid,
    source_of: SourceOf,
    former: RunFolder | None,
    *,
    root: Path | str,
    log: Log,
) -> Path | None:
    """The file that ``recipe.negatives.proposals`` means; for ``auto``, a copy of ``detector`` is trained and asked.

    None where there is none to be made: without negative chips, where the run ``former`` keeps its own, and for
    ``self``, as the run asks its own detector later (``renew_proposals``). Both stages lie in
    ``<root>/negatives/<fingerprint>`` and are skipped where they are done for the same data, initial weights and
    settings. A stage that was stopped goes on.

    Raises:
        RecipeError: the recipe's sampler cuts no chips.
        StoppedError: the brief training was stopped; the same command goes on.
    """
    wanted = recipe.negatives.proposals
    if wanted is None or (former is not None and (former.path / PROPOSALS).is_file()):
        return None
    if recipe.sampler.method != "chips":
        raise RecipeError(
            f"negatives.proposals needs sampler.method chips, not {recipe.sampler.method}; set one of them back"
        )
    if wanted == SELF:
        return None
    if wanted != AUTO:
        read_proposals(wanted, table)  # says now what is wrong with it
        return Path(wanted)
    brief = _brief(recipe)
    folder = Path(root) / "negatives" / first_stage_key(brief, table, weights_digest(detector), this_process()[1])[:16]
    proposer = copy.deepcopy(detector)
    _train_first_stage(brief, proposer, table, source_of(brief), folder, log)
    return _extract(recipe, proposer, table, pyramid, folder, log)


def _brief(recipe: Recipe) -> Recipe:
    length = {"epochs": recipe.negatives.proposal_epochs, "steps": None, "minutes": None}
    changed = {"evaluate_every": None, "patience": None, "ema": None, "tensorboard": False}
    if this_process()[1] > 1:
        changed["unused_parameters"] = True  # the second stage's
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=length | changed),
            "negatives": recipe.negatives.model_copy(update={"proposals": None, "refresh_epochs": None}),
        }
    )


def _train_first_stage(
    brief: Recipe, proposer: nn.Module, table: AnnotationTable, source: ChipSource, folder: Path, log: Log
) -> None:
    """Train ``proposer`` in place, or load what an earlier run trained."""
    weights = folder / "proposer.safetensors"
    if weights.is_file():
        log(f"proposals, training: done before, {weights}")
        load_into(proposer, load_weights(weights).weights, weights)
        return
    log(f"proposals, training: {brief.negatives.proposal_epochs:g} epochs of the first stage, in {folder}")
    run = RunFolder(folder / "training")
    on_main(lambda: brief.save(run.recipe))
    result = run_loop(FirstStage(proposer), source, brief.train, run, resume=run.state.is_file())
    if not result.finished:
        raise StoppedError(
            f"the training of proposals in {run.path} was stopped; the same command goes on with it",
            result.signal or signal.SIGTERM,
        )
    meta = CheckpointMeta(
        recipe=brief.model_dump(mode="json"),
        class_names=table.class_names,
        class_ids=tuple(int(i) for i in table.class_ids),
        step=result.step,
        epoch=result.epochs,
    )
    on_main(lambda: save_weights(weights, proposer.state_dict(), meta))
    for path in (run.state, run.last, run.last_ema):
        on_main(lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]


def _extract(
    recipe: Recipe, proposer: nn.Module, table: AnnotationTable, pyramid: Pyramid, folder: Path, log: Log
) -> Path:
    job = extraction(
        weights_digest(proposer), table, pyramid, recipe, recipe.negatives.extraction, folder / PROPOSALS,
        on_bad_image=recipe.loader.on_bad_image, seed=recipe.train.seed,
    )  # fmt: skip
    job = job._replace(output=folder / f"proposals-{job.key[:16]}.safetensors")
    if is_done(job):
        log(f"proposals, extraction: done before, {job.output}")
        return job.output
    log(f"proposals, extraction: {len(table)} images")
    _extract_by_all(job, proposer, recipe)
    log(f"proposals, extraction: {(read_details(job.output) or {})['count']:,} boxes, {job.output}")
    return job.output


def _extract_by_all(job: Extraction, detector: nn.Module, recipe: Recipe) -> None:
    """Every process makes its share of the parts; the main one joins them."""
    device = torch.device("cpu") if recipe.train.device == "cpu" else process_device()
    backend = TorchBackend(detector, device=device, precision=recipe.inference.precision)
    done, last = 0, 0

    def on_progress(images: int) -> None:
        nonlocal done, last
        done += images
        if done * 10 // max(len(job.table), 1) > last:
            last = done * 10 // max(len(job.table), 1)
            logger.info("proposals: %d of %d images", done, len(job.table))

    extract(job, backend, share=this_process(), on_progress=on_progress)
    wait_for_everyone()
    on_main(lambda: finish(job) and None)


def _adopt(path: Path, run: RunFolder, table: AnnotationTable) -> None:
    """Keep proposals in a run folder, so that resuming needs nothing else; of a sniper file no bytes are copied."""
    own = run.path / PROPOSALS
    if path.suffix.lower() == ".json":
        save_detections(own, read_proposals(path, table), {"from": str(path)})
        return
    with replacing(own) as partial:
        partial.unlink()
        try:
            os.link(path.resolve(), partial)
        except OSError:  # another file system
            shutil.copyfile(path, partial)


def feed_of_run(run: RunFolder, recipe: Recipe, table: AnnotationTable, made: Path | None = None) -> ProposalFeed:
    """The proposals that a run trains with. All lie in its folder, and resuming reads them.

    ``made`` is a file of first proposals that the run is to keep, from ``proposals_for``.

    Raises:
        CheckpointError: the run's first proposals are gone.
    """
    if made is not None:
        on_main(lambda: _adopt(made, run, table))
    first = None if recipe.negatives.proposals == SELF else run.path / PROPOSALS
    if first is not None and not first.is_file():
        raise CheckpointError(f"{run.path} trained with negative chips, but {first.name} is gone; start a new run")
    return ProposalFeed(table, recipe.negatives, first, every=recipe.negatives.refresh_epochs, folder=run.path)


def renew_proposals(
    feed: ProposalFeed, epoch: int, detector: nn.Module, recipe: Recipe, table: AnnotationTable, pyramid: Pyramid
) -> None:
    """Have ``detector``, as it is now, make the proposals of ``epoch`` where they are due and not there already."""
    path, since = feed.file(epoch), feed.since(epoch)
    if since == 0 or path is None or path.is_file():
        return
    logger.info("epoch %d: proposals from the model as it is now", since)
    job = extraction(
        weights_digest(detector), table, pyramid, recipe, recipe.negatives.extraction, path,
        on_bad_image=recipe.loader.on_bad_image, seed=recipe.train.seed + since,
    )  # fmt: skip
    _extract_by_all(job, detector, recipe)
