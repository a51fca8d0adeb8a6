"""Detectors of any make in our inference: levels, windows, ranges, merging, and AutoFocus by what they detect.

``docs/method.md``, "Detectors from elsewhere".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sniper.backends.callable import CallableBackend, PredictFunction
from sniper.errors import RecipeError
from sniper.inference.config import InferenceConfig
from sniper.pipeline.model import Model
from sniper.pyramid import Level
from sniper.recipe import Recipe

Levels = Sequence[Level | Mapping[str, Any]]

AS_IT_IS: Levels = ({"scale": 1.0},)


def from_callable(
    function: PredictFunction,
    class_names: Sequence[str],
    *,
    levels: Levels = AS_IT_IS,
    inference: InferenceConfig | Mapping[str, Any] | None = None,
    class_ids: Sequence[int] | None = None,
) -> Model:
    """A function that finds boxes, as a model that ``predict``, ``evaluate`` and ``detect_images`` take.

    Args:
        function: a list of (h, w, 3) uint8 RGB images to ``boxes, scores, labels`` of each: (N, 4) xyxy in px of the
            image, (N,) in [0, 1], (N,) class indices from 0. Images of one call have one padded size, not one size.
        class_names: names of the labels.
        levels: scales and the sizes kept at each, finest first, as in a recipe (``pyramid.levels``); those of a trained
            model are ``model.pyramid.levels``. The default takes images at scale 1, in windows.
        inference: windows, merging and AutoFocus, as in a recipe. Without a focus branch, small detections of one
            level say which parts of the image the next level covers.
        class_ids: ids of the classes in datasets; none: counted from 1.

    Raises:
        RecipeError: a setting is wrong, or there is not one id for each name.
    """
    names = tuple(class_names)
    ids = tuple(range(1, len(names) + 1)) if class_ids is None else tuple(class_ids)
    if not names or len(ids) != len(names):
        raise RecipeError(f"expected one id for each of at least one class name, got {len(ids)} for {len(names)}")
    settings = {
        "pyramid": {"levels": [one if isinstance(one, Mapping) else one.model_dump() for one in levels], "chip_px": 512}
    }
    if inference is not None:
        settings["inference"] = inference.model_dump() if isinstance(inference, InferenceConfig) else dict(inference)
    recipe = Recipe.parse(settings, "from_callable")
    return Model(CallableBackend(function, len(names)), recipe, names, ids)


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
