"""SAHI's detection models in our inference. Nothing of SAHI is imported: a model that is given brings it along.

``docs/method.md``, "Detectors from elsewhere".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.errors import RecipeError
from sniper.inference.config import InferenceConfig
from sniper.pipeline.from_callable import AS_IT_IS, Levels, from_callable
from sniper.pipeline.model import Model


def from_sahi(
    model: Any, *, levels: Levels = AS_IT_IS, inference: InferenceConfig | Mapping[str, Any] | None = None
) -> Model:
    """A SAHI ``DetectionModel`` in our inference in place of SAHI's slicing; boxes only. Others as ``from_callable``.

    What the model itself drops, below its ``confidence_threshold``, is gone: lower that for evaluation. Classes are
    those of its ``category_mapping``, with their ids.

    Raises:
        RecipeError: it has no classes or is no SAHI model, or a setting is wrong.
    """
    for name in ("perform_inference", "convert_original_predictions", "category_mapping"):
        if not hasattr(model, name):
            raise RecipeError(f"expected a SAHI DetectionModel, but {type(model).__name__} has no {name}")
    if not model.category_mapping:
        raise RecipeError(f"{type(model).__name__} has no category_mapping; load its weights first, or give one")
    remapped = getattr(model, "category_remapping", None) or {}
    named = {int(remapped.get(str(number), number)): str(name) for number, name in model.category_mapping.items()}
    ids = sorted(named)
    row_of = {number: row for row, number in enumerate(ids)}

    def function(images: list[NDArray[np.uint8]]) -> list[tuple[NDArray, NDArray, NDArray]]:
        return [_columns(found, row_of) for found in _predictions(model, images)]

    names = [named[number] for number in ids]
    return from_callable(function, names, levels=levels, inference=inference, class_ids=ids)


def _predictions(model: Any, images: list[NDArray[np.uint8]]) -> list[list[Any]]:
    """SAHI's ``ObjectPrediction`` objects of each image, from one call where the model takes several."""
    if hasattr(model, "perform_batch_inference"):
        model.perform_batch_inference(images)
        sizes = [list(image.shape[:2]) for image in images]
        model.convert_original_predictions(shift_amount=[[0, 0]] * len(images), full_shape=sizes)
        return list(model.object_prediction_list_per_image)
    found = []
    for image in images:
        model.perform_inference(image)
        model.convert_original_predictions(shift_amount=[0, 0], full_shape=list(image.shape[:2]))
        found.append(list(model.object_prediction_list))
    return found


def _columns(found: list[Any], row_of: Mapping[int, int]) -> tuple[NDArray, NDArray, NDArray]:
    """Boxes, scores and labels of one image's predictions, which are one Python object each already."""
    boxes = np.asarray([one.bbox.to_xyxy() for one in found], np.float32).reshape(-1, 4)
    scores = np.asarray([one.score.value for one in found], np.float32)
    unknown = {one.category.id for one in found} - row_of.keys()
    if unknown:
        raise RecipeError(f"category {min(unknown)} was predicted, but category_mapping has only {sorted(row_of)}")
    return boxes, scores, np.asarray([row_of[one.category.id] for one in found], np.int64)
