"""Run a detector over a dataset and measure it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sniper.data.source import Format, load_dataset
from sniper.data.table import AnnotationTable, DetectionTable
from sniper.evaluation.coco import CocoResult, evaluate_coco
from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.error_types import ErrorSplit, judge
from sniper.files import write_bytes, write_text
from sniper.inference.config import InferenceConfig
from sniper.pipeline.detect import DatasetDetections, DetectionJob, detect_dataset, shards_of
from sniper.pipeline.keys import detections_key
from sniper.pipeline.model import Model
from sniper.pipeline.processes import Network, Watch, source_of
from sniper.pipeline.shards import Parts, is_main, opened
from sniper.pipeline.sources import BadImage
from sniper.pyramid import Pyramid
from sniper.report.curves import draw_pr_curves

PREDICTIONS = "predictions.json"

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A dataset's score and what it cost."""

    result: CocoResult
    detections: DetectionTable
    seconds: float
    pixels_per_image: float  # padded input pixels that the network saw, mean
    pixel_share: float  # of those of the full pyramids; below 1 where AutoFocus left something out
    skipped: list[tuple[str, str]]  # files left out, with the reason
    errors: ErrorSplit  # of as many best detections as there are objects
    masks: CocoResult | None = None  # the same by overlap of masks, where both detector and dataset have them

    def as_dict(self) -> dict[str, float]:
        """The numbers under COCO's names; those of masks as ``segm_AP``, ``segm_AP50``, ..."""
        masks = {} if self.masks is None else self.masks.as_dict()
        return self.result.as_dict() | {f"segm_{name}": number for name, number in masks.items()}


def evaluate_table(
    detector: nn.Module,
    table: AnnotationTable,
    pyramid: Pyramid,
    inference: InferenceConfig,
    protocol: CocoEvalConfig,
    *,
    device: torch.device | str = "cpu",
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
    by_ranks: bool = False,
) -> Evaluation:
    """COCO evaluation of a detector on a dataset that is already loaded.

    With ``by_ranks`` all processes of this launch (torchrun, accelerate) must call this: each looks at its share of the
    images, and all get the result of all, as one process would.
    """
    job = DetectionJob(table, pyramid, inference, shards_of(table, inference), on_bad_image)
    network = Network(detector, torch.device(device))
    start = time.perf_counter()
    found = detect_dataset(job, network, Watch(on_progress), by_ranks=by_ranks)
    return score(table, found, protocol, seconds=time.perf_counter() - start)


def score(table: AnnotationTable, found: DatasetDetections, protocol: CocoEvalConfig, *, seconds: float) -> Evaluation:
    """The numbers of what was found in a dataset; finding it took ``seconds``."""
    detections = found.table
    result = evaluate_coco(table, detections, protocol)
    errors = judge(table, detections, class_agnostic=protocol.class_agnostic).best(number=result.objects)
    both = table.masks is not None and detections.masks is not None
    masks = evaluate_coco(table, detections, protocol, iou_type="segm") if both else None
    cost = found.pixels_per_image, found.pixel_share
    return Evaluation(result, detections, seconds, *cost, found.skipped, errors, masks)


def evaluate(
    checkpoint: Path | str | Model,
    data: Path | str | AnnotationTable,
    *,
    split: str | None = None,
    output: Path | str | None = None,
    processes: int = 1,
    by_ranks: bool = False,
    detector: nn.Module | None = None,
    device: str = "auto",
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure a checkpoint on a dataset, by the COCO protocol.

    With ``output``, an evaluation that was stopped or killed goes on where it was. The result does not depend on the
    number of processes (``pipeline.shards``). A script that asks for several must guard its own start by
    ``if __name__ == "__main__":``, as they import it.

    Args:
        checkpoint: weights file, run folder, or a model already loaded.
        data: dataset by path (its form is found), or a table.
        split: split of the dataset, where it holds several.
        output: folder for ``predictions.json`` (COCO results), ``metrics.json`` and ``pr_curves.png``; none: no files.
        processes: work on parts at the same time, each with its own copy of the model; several GPUs are dealt out.
        by_ranks: share the images with the other processes of this launch (torchrun, accelerate), all of which must
            call this; the main one writes the files.
        detector: your own detector, for a checkpoint of it, in one process.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        on_bad_image: ``stop`` at an unreadable image, or ``skip`` and list it.
        on_progress: called with the number of images done.

    Raises:
        CheckpointError, DataError, RecipeError, StorageError: what cannot be used.
    """
    model = opened(checkpoint, detector, device, by_ranks=by_ranks)
    source = source_of(model) if processes > 1 else None
    table = table_for(model.class_names, data, split, on_bad_image=on_bad_image)
    inference, protocol = model.recipe.inference, model.recipe.evaluation
    parts = None
    if output is not None:
        key = detections_key(model.recipe, table, model.detector, {"on_bad_image": on_bad_image})
        parts = Parts.beside(Path(output) / PREDICTIONS, key[:16])
    job = DetectionJob(table, model.pyramid, inference, shards_of(table, inference), on_bad_image, parts)
    network, watch, start = Network(model.detector, model.device), Watch(on_progress), time.perf_counter()
    found = detect_dataset(job, network, watch, processes=processes, source=source, by_ranks=by_ranks)
    done = score(table, found, protocol, seconds=time.perf_counter() - start)
    if output is not None and parts is not None and (not by_ranks or is_main()):
        save_evaluation(done, table, output)
        parts.remove()
    return done


def table_for(
    class_names: tuple[str, ...],
    data: Path | str | AnnotationTable,
    split: str | None = None,
    *,
    on_bad_image: BadImage = "stop",
    format: Format | None = None,
    image_root: str | None = None,
) -> AnnotationTable:
    """A dataset as a detector of these classes sees it: its labels; classes the data lack have no objects."""
    if isinstance(data, AnnotationTable):
        return data if data.class_names == class_names else data.with_classes(class_names, missing="allow")
    return load_dataset(
        data,
        split,
        format=format,
        image_root=image_root,
        classes=class_names,
        missing_classes="allow",
        skip_bad_images=on_bad_image == "skip",
    )


def save_evaluation(done: Evaluation, table: AnnotationTable, folder: Path | str) -> None:
    """``predictions.json`` as the COCO server takes it, ``metrics.json`` and the precision-recall curves."""
    folder = Path(folder)
    done.detections.write_coco_results(folder / PREDICTIONS, table.class_ids)
    cost = {"seconds": done.seconds, "pixels_per_image": done.pixels_per_image, "pixel_share": done.pixel_share}
    numbers = done.as_dict() | cost
    write_text(folder / "metrics.json", json.dumps(numbers | {"errors": done.errors.as_dict()}, indent=1))
    write_bytes(folder / "pr_curves.png", draw_pr_curves(done.result.pr_curves))
