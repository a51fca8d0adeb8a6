"""A model whose regions are named by learned classes."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from sniper.backends.new_classes import NewClassBackend
from sniper.backends.region_features import CropFeatures, DetectorFeatures
from sniper.inference.regions import RegionSource
from sniper.new_classes.head import ClassHead
from sniper.new_classes.head_file import load_head
from sniper.nn.crop_trunk import build_crop_trunk
from sniper.pipeline.model import Model

_DRAWN = 0.3  # objectness from which on a region at the threshold is drawn


def region_source(model: Model, features: str, weights: str | None) -> RegionSource:
    """What describes the regions of a model: ``detector``, or a trunk by name with its weights (a file, imagenet).

    Raises:
        RecipeError: the detector has no features of its own, or there is no such trunk.
        CheckpointError: the weights cannot be had.
    """
    if features == "detector":
        return DetectorFeatures(model.backend, model.digest())
    trunk = build_crop_trunk(features, weights or "imagenet")
    return CropFeatures(model.backend, trunk, model.device)


def with_classes(model: Model, classes: Path | str | ClassHead) -> Model:
    """What ``Model.with_classes`` gives."""
    head = classes if isinstance(classes, ClassHead) else load_head(classes)
    source = region_source(model, head.features.name, head.features.weights)
    backend = NewClassBackend(source, head, model.recipe.inference.reject_below)
    detector = model.digest()
    rows = np.ascontiguousarray(head.classifier.weights)
    told = f"{detector} {source.digest()} {head.class_names} {head.calibration}".encode()
    digest = hashlib.sha256(told + rows.tobytes() + head.classifier.space.projection.tobytes()).hexdigest()
    data = model.recipe.data.model_copy(update={"class_agnostic": False})
    return replace(
        model,
        backend=backend,
        recipe=model.recipe.model_copy(update={"data": data}),
        class_names=head.class_names,
        class_ids=tuple(range(1, len(head) + 1)),
        draw_scores=(_DRAWN * backend.threshold,) * len(head),
        weights_digest=lambda: digest,
        classes=None if isinstance(classes, ClassHead) else Path(classes),
        checkpoint=None if isinstance(classes, ClassHead) else model.checkpoint,
    )
