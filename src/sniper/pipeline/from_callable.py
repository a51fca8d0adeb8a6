"""Any function that finds boxes, as a model: levels, windows, ranges, merging, and AutoFocus by what it detects.

``docs/method.md``, "Detectors from elsewhere".
"""

from collections.abc import Mapping, Sequence
from typing import Any

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
    backend = CallableBackend(function, len(names))
    settings: dict[str, Any] = {
        "model": {"kind": "custom", "name": backend.name},
        "pyramid": {
            "levels": [one if isinstance(one, Mapping) else one.model_dump() for one in levels],
            "chip_px": 512,
        },
    }
    if inference is not None:
        settings["inference"] = inference.model_dump() if isinstance(inference, InferenceConfig) else dict(inference)
    recipe = Recipe.parse(settings, "from_callable")
    return Model(backend, recipe, names, ids)
