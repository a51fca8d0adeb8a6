"""Run a detector over a dataset and measure it."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sniper.data.class_map import ClassMap, read_class_map
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.data.wider_detections import write_wider_detections
from sniper.errors import RecipeError
from sniper.evaluation.best_f1 import BestF1, best_f1
from sniper.evaluation.coco import CocoScore
from sniper.evaluation.coco_result import CocoResult
from sniper.evaluation.config import CocoEvalConfig, ProtocolName
from sniper.evaluation.error_types import ErrorSplit, judge
from sniper.evaluation.protocol import Score, ScoreTable, all_curves, all_numbers
from sniper.evaluation.protocols import protocols_of
from sniper.files import write_bytes, write_text
from sniper.inference.backend import Backend
from sniper.inference.config import InferenceConfig
from sniper.pipeline.bounds import warn_of_bounds
from sniper.pipeline.detect import DatasetDetections, DetectionJob, detect_dataset, shards_of
from sniper.pipeline.keys import detections_key
from sniper.pipeline.model import Model
from sniper.pipeline.shards import Parts, is_main, opened
from sniper.pipeline.short_forms import short_overrides
from sniper.pipeline.sources import BadImage
from sniper.pipeline.tables import Data, table_for
from sniper.pipeline.value_range import files_of, with_value_range
from sniper.pipeline.watch import Watch, source_of
from sniper.pixels.sample_map import SampleMap
from sniper.pyramid import Pyramid
from sniper.report.curves import draw_pr_curves

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger("sniper")

PREDICTIONS = "predictions.json"
WIDER_PREDICTIONS = "wider"  # folder in the official layout, where the protocol wider measures
RESULTS = PREDICTIONS, "pr_curves.png", "metrics.json"  # in the order in which they are written

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A dataset's scores and what they cost."""

    scores: tuple[Score, ...]  # one a protocol
    detections: DetectionTable
    seconds: float
    pixels_per_image: float  # padded input pixels that the network saw, mean
    pixel_share: float  # of those of the full pyramids; below 1 where AutoFocus left something out
    skipped: list[tuple[str, str]]  # files left out, with the reason
    errors: ErrorSplit  # of as many best detections as there are objects
    best_f1: tuple[BestF1, ...] = ()  # of each class: from which score on to draw detections
    class_names: tuple[str, ...] = ()

    @property
    def draw_scores(self) -> tuple[float, ...]:
        """(C,) the score of each class with the best F1."""
        return tuple(best.score for best in self.best_f1)

    def best_f1_table(self) -> ScoreTable:
        """The scores that detections are drawn from, ready for a terminal or a page; classes with objects only."""
        rows = [
            [name, *(f"{number:.2f}" for number in best[:4])]
            for name, best in zip(self.class_names, self.best_f1, strict=True)
            if best.objects
        ]
        return ScoreTable("Best F1, from which score on to draw", ["class", "score", "precision", "recall", "F1"], rows)

    @property
    def result(self) -> CocoResult:
        """The COCO protocol's, on boxes.

        Raises:
            RecipeError: ``evaluation.protocols`` leaves COCO out.
        """
        return self._coco.boxes

    @property
    def masks(self) -> CocoResult | None:
        """The same by overlap of masks, where both detector and dataset have them. Raises as ``result``."""
        return self._coco.masks

    @property
    def _coco(self) -> CocoScore:
        for score in self.scores:
            if isinstance(score, CocoScore):
                return score
        given = ", ".join(score.name for score in self.scores)
        raise RecipeError(f"expected a COCO score, but evaluation.protocols is [{given}]; add coco, or read scores")

    def as_dict(self) -> dict[str, float]:
        """The numbers of all protocols by name: COCO's AP, AP50, ...; those of masks segm_AP, segm_AP50, ..."""
        return all_numbers(self.scores)


def evaluate_table(
    backend: Backend,
    table: AnnotationTable,
    pyramid: Pyramid,
    inference: InferenceConfig,
    settings: CocoEvalConfig,
    *,
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
    by_ranks: bool = False,
    sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
) -> Evaluation:
    """Evaluation of a detector on a dataset that is already loaded, by the protocols of ``settings``.

    With ``by_ranks`` all processes of this launch (torchrun, accelerate) must call this: each runs on its share of the
    images, and all get the result of all, as one process would.
    """
    shards = shards_of(table, inference)
    job = DetectionJob(table, pyramid, inference, shards, on_bad_image, sample_map=sample_map)
    start = time.perf_counter()
    found = detect_dataset(job, backend, Watch(on_progress), by_ranks=by_ranks)
    return scored(table, found, settings, seconds=time.perf_counter() - start)


def scored(table: AnnotationTable, found: DatasetDetections, settings: CocoEvalConfig, *, seconds: float) -> Evaluation:
    """The numbers of what was found in a dataset; finding it took ``seconds``."""
    scores = tuple(protocol(table, found.table) for protocol in protocols_of(settings))
    verdicts = judge(table, found.table, class_agnostic=settings.class_agnostic)
    errors = verdicts.best(number=verdicts.objects)
    best = best_f1(table, found.table, class_agnostic=settings.class_agnostic)
    cost = found.pixels_per_image, found.pixel_share
    return Evaluation(scores, found.table, seconds, *cost, found.skipped, errors, best, table.class_names)


def evaluate(
    checkpoint: Path | str | Model,
    data: Data,
    *,
    split: str | None = None,
    output: Path | str | None = None,
    protocols: tuple[ProtocolName, ...] | None = None,
    class_map: ClassMap | Path | str | None = None,
    focus_threshold: float | None = None,
    pixel_budget: float | None = None,
    processes: int = 1,
    by_ranks: bool = False,
    detector: "nn.Module | None" = None,
    device: str = "auto",
    form: Path | str | None = None,
    overrides: Iterable[str] = (),
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure a checkpoint on a dataset, by the given protocols or those of its recipe (COCO's, if it says nothing).

    With ``output``, an evaluation that was stopped or killed goes on where it was. The result does not depend on the
    number of processes (``pipeline.shards``). A script that asks for several must guard its own start by
    ``if __name__ == "__main__":``, as they import it.

    Args:
        checkpoint: weights file, run folder, ONNX file, or a model already loaded.
        data: dataset by path (its form is found), a ``DataSource`` that says more, or a table.
        split: split of a dataset by path, where it holds several; none: val, or test if there is none.
        output: folder for ``predictions.json`` (COCO results), ``metrics.json`` and ``pr_curves.png``; none: no files.
        protocols: how detections are measured, ``coco``, ``voc``, ...; none: as the recipe says.
        class_map: file that says what class of the dataset a class of the detector counts for, as ``read_class_map``
            reads it; detections of classes that are not in it are left out. None: the classes have the same names.
        focus_threshold: AutoFocus: run finer levels only where a small object is at least this likely; 0: everywhere;
            none: as the recipe says.
        pixel_budget: AutoFocus: bound on the pixels, as a share of the full pyramid; none: as the recipe says.
        processes: work on parts at the same time, each with its own copy of the model; several GPUs are dealt out.
        by_ranks: share the images with the other processes of this launch (torchrun, accelerate), all of which must
            call this; the main one writes the files.
        detector: your own detector, for a checkpoint of it, in one process.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        form: for an ONNX file from elsewhere, as for ``load_model``.
        overrides: ``a.b=c`` settings on top of the checkpoint's, such as ``evaluation.max_detections=2000``.
        on_bad_image: ``stop`` at an unreadable image, or ``skip`` and list it.
        on_progress: called with the number of images done.

    Raises:
        CheckpointError, DataError, RecipeError, StorageError: what cannot be used.
    """
    model = opened(checkpoint, detector, device, by_ranks=by_ranks, form=form, overrides=overrides)
    model = model.focused(focus_threshold, pixel_budget)
    source = source_of(model) if processes > 1 else None
    if isinstance(class_map, Path | str):
        class_map = read_class_map(class_map, model.class_names)
    names = model.class_names if class_map is None else class_map.names
    agnostic = model.recipe.data.class_agnostic
    table = table_for(names, data, split, on_bad_image=on_bad_image, class_agnostic=agnostic)
    if table.ignored.all():
        logger.warning(
            "the data at %s have no object to find: %d images, %d objects, all of them ignored; the scores say nothing",
            table.root, len(table), table.num_objects,
        )  # fmt: skip
    model = replace(model, recipe=with_value_range(model.recipe, files_of(table)))
    inference, settings = model.recipe.inference, model.recipe.evaluation
    if protocols is not None:
        settings = model.recipe.changed(short_overrides(protocols=protocols)).evaluation
    warn_of_bounds(model.recipe, model.pyramid, table)
    parts = None
    if output is not None:
        key = detections_key(model.recipe, table, model.digest(), {"on_bad_image": on_bad_image})
        parts = Parts.beside(Path(output) / PREDICTIONS, key[:16])
    shards, sample_map = shards_of(table, inference), model.recipe.data.sample_map
    job = DetectionJob(table, model.pyramid, inference, shards, on_bad_image, parts, sample_map)
    watch, start = Watch(on_progress), time.perf_counter()
    found = detect_dataset(job, model.backend, watch, processes=processes, source=source, by_ranks=by_ranks)
    if class_map is not None:
        found = replace(found, table=class_map(found.table))
    done = scored(table, found, settings, seconds=time.perf_counter() - start)
    if output is not None and parts is not None and (not by_ranks or is_main()):
        save_evaluation(done, table, output)
        parts.remove()
    return done


def save_evaluation(done: Evaluation, table: AnnotationTable, folder: Path | str, *, step: int | None = None) -> None:
    """``predictions.json`` as the COCO server takes it, the precision-recall curves and, last, ``metrics.json``.

    Where the protocol wider measures, also a folder ``wider`` in its official layout.

    ``step`` is that of a training whose weights were measured.
    """
    folder = Path(folder)
    predictions, curves, numbers = (folder / name for name in RESULTS)
    done.detections.write_coco_results(predictions, table.class_ids)
    write_bytes(curves, draw_pr_curves(all_curves(done.scores)))
    if any(score.name == "wider" for score in done.scores):
        write_wider_detections(folder / WIDER_PREDICTIONS, table, done.detections)
    cost = {"seconds": done.seconds, "pixels_per_image": done.pixels_per_image, "pixel_share": done.pixel_share}
    best = {name: one._asdict() for name, one in zip(done.class_names, done.best_f1, strict=True)}
    told = {**done.as_dict(), **cost, "errors": done.errors.as_dict(), "best_f1": best}
    write_text(numbers, json.dumps(told | ({} if step is None else {"step": step}), indent=1))
