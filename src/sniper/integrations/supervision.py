"""Our detections as supervision's. The only module that imports it: ``pip install "sniper-detection[supervision]"``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sniper.data.run_lengths import RunLengths
from sniper.errors import RecipeError
from sniper.inference.images import ImageDetections
from sniper.pipeline.prediction import Prediction

if TYPE_CHECKING:
    import supervision


def to_supervision(
    found: Prediction | ImageDetections, class_names: Sequence[str] | None = None
) -> "supervision.Detections":
    """What was found in an image as ``supervision.Detections``, for its annotators, trackers, zones and metrics.

    Boxes are xyxy in original px, ``class_id`` counts from 0, ``data["class_name"]`` names the classes, masks are a
    ``CompactMask``: run lengths inside the boxes, however large the image is.

    Args:
        found: an item of ``sniper.predict``, or what ``Model.detect`` gives.
        class_names: of the labels: ``model.class_names``; none: those that an item of ``sniper.predict`` has.

    Raises:
        RecipeError: there are no class names.
        ImportError: supervision is not installed.
    """
    names = found.class_names if class_names is None and isinstance(found, Prediction) else class_names
    if names is None:
        raise RecipeError("to_supervision needs the names of the classes; give class_names=model.class_names")
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError('supervision is not installed: pip install "sniper-detection[supervision]"') from error
    known = np.asarray(names, dtype=str)
    return Detections(
        xyxy=found.boxes_xyxy,
        mask=_compact(found.masks, found.boxes_xyxy),
        confidence=found.scores,
        class_id=found.labels.astype(int),
        data={"class_name": known[found.labels]},
    )


def _compact(masks: RunLengths | None, boxes_xyxy: NDArray[np.float32]) -> "supervision.CompactMask | None":
    """Masks as supervision keeps them; of no object there is no size of the image, and no mask."""
    if masks is None or len(masks) == 0:
        return None
    from supervision import CompactMask

    height, width = masks.sizes_hw[0].tolist()
    return CompactMask.from_coco_rle(list(masks), boxes_xyxy, (height, width))
