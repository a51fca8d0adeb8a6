"""Run a detector over a dataset and measure it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from sniper.data.detections import DetectionTable
from sniper.data.run_lengths import RunLengths
from sniper.data.source import Format, load_dataset
from sniper.data.table import AnnotationTable
from sniper.errors import DataError, RecipeError
from sniper.evaluation.coco import CocoScore
from sniper.evaluation.coco_result import CocoResult
from sniper.evaluation.config import CocoEvalConfig
from sniper.evaluation.error_types import ErrorSplit, judge
from sniper.evaluation.protocol import Score, all_curves, all_numbers
from sniper.evaluation.protocols import protocols_of
from sniper.files import write_bytes, write_text
from sniper.inference.backend import Backend
from sniper.inference.config import InferenceConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageDetections
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.sources import BadImage, Skipped, table_images
from sniper.pyramid import Pyramid
from sniper.report.curves import draw_pr_curves

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


class PixelCost(NamedTuple):
    """Canvas pixels that the network saw."""

    per_image: float  # mean
    share: float  # of those of the full pyramids


def detect_table(
    backend: Backend,
    table: AnnotationTable,
    pyramid: Pyramid,
    config: InferenceConfig,
    *,
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
) -> tuple[DetectionTable, PixelCost, list[tuple[str, str]]]:
    """Detections of a dataset's images, what they cost, and the files skipped, which are not in the result.

    Raises:
        DataError: an image cannot be read and ``on_bad_image`` is ``stop``, or none can.
    """
    skipped = Skipped()
    found: list[ImageDetections] = []
    pictures = table_images(table, skipped, on_bad_image, whole_megapixels=config.whole_megapixels)
    for one in detect_images(
        backend,
        pictures,
        pyramid,
        config,
        on_error=lambda row, error: skipped.handle(str(table.image_path(row)), error, on_bad_image),
    ):
        found.append(one)
        if on_progress:
            on_progress(1)
    if not found:
        raise DataError(f"none of {len(table)} images can be read; the first: {skipped.files[0][1]}")
    counts = [len(one.scores) for one in found]
    masks = [one.masks for one in found if one.masks is not None]
    columns = DetectionTable.from_arrays(
        image_row=np.repeat(np.arange(len(found)), counts),
        boxes_xyxy=_joined([one.boxes_xyxy for one in found], (0, 4), np.float32),
        scores=_joined([one.scores for one in found], (0,), np.float32),
        labels=_joined([one.labels for one in found], (0,), np.int32),
        levels=_joined([one.levels for one in found], (0,), np.int16),
        image_ids=table.image_ids[[one.key for one in found]],
        masks=RunLengths.join(masks) if len(masks) == len(found) else None,
    )
    pixels = sum(one.pixels_processed for one in found)
    cost = PixelCost(pixels / len(found), pixels / sum(one.pixels_full for one in found))
    return columns, cost, skipped.files


def _joined(parts: list[np.ndarray], empty: tuple[int, ...], kind: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(empty, dtype=kind)


def evaluate_table(
    backend: Backend,
    table: AnnotationTable,
    pyramid: Pyramid,
    inference: InferenceConfig,
    settings: CocoEvalConfig,
    *,
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluation of a detector on a dataset that is already loaded, by the protocols of ``settings``."""
    start = time.perf_counter()
    detections, pixels, skipped = detect_table(
        backend, table, pyramid, inference, on_bad_image=on_bad_image, on_progress=on_progress
    )
    seconds = time.perf_counter() - start
    scores = tuple(protocol(table, detections) for protocol in protocols_of(settings))
    verdicts = judge(table, detections, class_agnostic=settings.class_agnostic)
    errors = verdicts.best(number=verdicts.objects)
    return Evaluation(scores, detections, seconds, pixels.per_image, pixels.share, skipped, errors)


def evaluate(
    checkpoint: Path | str | Model,
    data: Path | str | AnnotationTable,
    *,
    split: str | None = None,
    output: Path | str | None = None,
    detector: nn.Module | None = None,
    device: str = "auto",
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure a checkpoint on a dataset, by the protocols of its recipe (COCO's, if it says nothing).

    Args:
        checkpoint: weights file, run folder, or a model already loaded.
        data: dataset by path (its form is found), or a table.
        split: split of the dataset, where it holds several.
        output: folder for ``predictions.json`` (COCO results), ``metrics.json`` and ``pr_curves.png``; none: no files.
        detector: your own detector, for a checkpoint of it.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        on_bad_image: ``stop`` at an unreadable image, or ``skip`` and list it.
        tick: called with the number of images done, for progress.
    """
    model = checkpoint if isinstance(checkpoint, Model) else load_model(checkpoint, detector=detector, device=device)
    table = table_for(model.class_names, data, split, on_bad_image=on_bad_image)
    done = evaluate_table(
        model.backend,
        table,
        model.pyramid,
        model.recipe.inference,
        model.recipe.evaluation,
        on_bad_image=on_bad_image,
        on_progress=on_progress,
    )
    if output is not None:
        save_evaluation(done, table, output)
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
    done.detections.write_coco_results(folder / "predictions.json", table.class_ids)
    cost = {"seconds": done.seconds, "pixels_per_image": done.pixels_per_image, "pixel_share": done.pixel_share}
    numbers = done.as_dict() | cost
    write_text(folder / "metrics.json", json.dumps(numbers | {"errors": done.errors.as_dict()}, indent=1))
    write_bytes(folder / "pr_curves.png", draw_pr_curves(all_curves(done.scores)))
