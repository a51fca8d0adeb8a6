"""Our detectors in SAHI's sliced prediction. The only module that imports SAHI: ``pip install sniper-detection[sahi]``.

    from sahi.predict import get_sliced_prediction
    from sniper.integrations.sahi import SniperDetectionModel

    model = SniperDetectionModel("runs/train/mine", confidence_threshold=0.3)
    found = get_sliced_prediction("photo.jpg", model, slice_height=512, slice_width=512, batch_size=4)

``docs/method.md``, "Detectors from elsewhere".
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from sniper.errors import RecipeError
from sniper.inference.config import InferenceConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.masks import INSIDE
from sniper.pipeline.model import Model, load_model
from sniper.pyramid import Level, Pyramid

try:
    from sahi.models.base import DetectionModel
    from sahi.prediction import ObjectPrediction
    from sahi.utils.cv import get_coco_segmentation_from_bool_mask
except ImportError as error:
    raise ImportError("SAHI is not installed: pip install 'sniper-detection[sahi]'") from error


class SniperDetectionModel(DetectionModel):  # type: ignore[misc]
    """A checkpoint of ours as SAHI takes it.

    By default a slice is one window at scale 1, and detections of any size count: slicing takes the
    place of the pyramid, and the ranges of its levels would drop what no slice at another scale finds. Whatever is
    larger than ``inference.window_px``, such as the whole image of SAHI's standard prediction, is seen in windows.
    """

    category_mapping: dict[str, str] | None

    def __init__(
        self,
        model_path: str | None = None,
        model: Model | None = None,
        *,
        levels: Literal["one", "all"] = "one",
        image_size: int | None = None,
        inference: InferenceConfig | None = None,
        mask_threshold: float = INSIDE,
        **sahi: Any,
    ) -> None:
        """Load it, unless ``load_at_init=False``.

        Args:
            model_path: weights file or run folder.
            model: a model already loaded, in place of it; stays on its device.
            levels: a slice at one scale, or the checkpoint's whole pyramid inside each, with its ranges.
            image_size: with one level: slices and whole images are scaled to this long side, network px, as by SAHI's
                other models; None: scale 1. Slices of 256 px with 512 are run at scale 2.
            inference: windows, merging and AutoFocus inside a slice; none: as in the checkpoint, but with hard NMS.
                SAHI merges slices afterwards, and would join to an object the duplicates that soft-NMS only lowers.
            mask_threshold: only 0.5, where the masks of the mask branch end.
            sahi: other arguments of ``sahi.models.base.DetectionModel``: ``device``, ``confidence_threshold``,
                ``category_mapping``, ``category_remapping``, ``load_at_init``.

        Raises:
            RecipeError: a setting is not possible.
            CheckpointError: the checkpoint cannot be read.
        """
        if mask_threshold != INSIDE:
            raise RecipeError(
                f"masks end where their probability is {INSIDE:g}; mask_threshold={mask_threshold:g} cannot"
            )
        if levels not in ("one", "all"):
            raise RecipeError(f"levels: expected one or all, got {levels!r}")
        if levels == "all" and image_size is not None:
            raise RecipeError("image_size goes with one level; all levels have scales of their own")
        self.levels, self.inference = levels, inference
        self.pixels_processed = 0  # padded input pixels that the network has seen, all slices so far
        super().__init__(model_path, model, mask_threshold=mask_threshold, image_size=image_size, **sahi)

    def load_model(self) -> None:
        """Read the checkpoint at ``model_path``.

        Raises:
            CheckpointError: it cannot be read.
        """
        if self.model_path is None:
            raise RecipeError("give model_path, a checkpoint or run folder, or model")
        self.set_model(load_model(self.model_path, device=str(self.device)))

    def set_model(self, model: Model, **_: Any) -> None:
        """Take a model that is loaded already."""
        self.model = model
        self.device = getattr(model.backend, "device", "cpu")
        if self.category_mapping is None:
            self.category_mapping = {str(k): name for k, name in zip(model.class_ids, model.class_names, strict=True)}

    @property
    def pyramid(self) -> Pyramid:
        """The levels that are run on a slice."""
        if self.levels == "all":
            return self.model.pyramid
        one = Level(scale=1.0) if self.image_size is None else Level(long_px=self.image_size)
        return Pyramid(levels=(one,), chip_px=self.model.pyramid.chip_px)

    @property
    def num_categories(self) -> int:
        """How many classes there are."""
        return len(self.model.class_names)

    @property
    def category_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return list(self.model.class_names)

    @property
    def has_mask(self) -> bool:
        """Whether predictions have masks."""
        return self.model.backend.predicts_masks

    def perform_inference(self, image: NDArray[np.uint8]) -> None:
        """Run inference on one (h, w, 3) uint8 RGB slice."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[NDArray[np.uint8]]) -> None:
        """Run inference on several slices, in batches of what ``inference.batch_pixels`` allows."""
        config = self.inference or _with_hard_nms(self.model.recipe.inference)
        inputs = (ImageInput(key, np.ascontiguousarray(image[..., :3])) for key, image in enumerate(images))
        found = list(detect_images(self.model.backend, inputs, self.pyramid, config))
        self.pixels_processed += sum(one.pixels_processed for one in found)
        self._original_predictions = found

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: Sequence[Any] | None = None,
        full_shape_list: Sequence[Any] | None = None,
    ) -> None:
        """SAHI's objects of each slice, of at least ``confidence_threshold``, best first."""
        found: list[ImageDetections] = self._original_predictions
        shifts = np.reshape(shift_amount_list or [0, 0], (-1, 2)).tolist()
        shapes = None if full_shape_list is None else np.reshape(full_shape_list, (-1, 2)).tolist()
        shifts = shifts * len(found) if len(shifts) == 1 else shifts
        shapes = [None] * len(found) if shapes is None else (shapes * len(found) if len(shapes) == 1 else shapes)
        self._object_prediction_list_per_image = [
            self._objects(one, shift, shape) for one, shift, shape in zip(found, shifts, shapes, strict=True)
        ]

    def _objects(self, one: ImageDetections, shift: list[int], shape: list[int] | None) -> list[ObjectPrediction]:
        rows = np.flatnonzero(one.scores >= self.confidence_threshold).tolist()
        boxes, scores = one.boxes_xyxy.tolist(), one.scores.tolist()
        names = self.category_mapping or {}
        ids = [self.model.class_ids[label] for label in one.labels.tolist()]
        return [
            ObjectPrediction(
                bbox=boxes[row],
                category_id=ids[row],
                category_name=names[str(ids[row])],
                segmentation=self._polygons(one, row),
                score=scores[row],
                shift_amount=shift,
                full_shape=shape,
            )
            for row in rows
        ]

    def _polygons(self, one: ImageDetections, row: int) -> list[list[float]] | None:
        """The mask as SAHI keeps it; None without masks, and for one too small for a polygon, which keeps its box."""
        if one.masks is None:
            return None
        polygons: list[list[float]] = get_coco_segmentation_from_bool_mask(coco_mask.decode(one.masks[row]) > 0)
        return polygons or None


def _with_hard_nms(config: InferenceConfig) -> InferenceConfig:
    merge = config.merge.model_copy(update={"method": "hard"})
    return config.model_copy(update={"merge": merge})
