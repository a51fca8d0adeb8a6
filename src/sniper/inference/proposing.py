"""Class-free proposals over all levels: what negative chips are mined from.

Every level is run as in detection; no range of sizes limits what it may propose, and the boxes of all levels compete
together in one greedy NMS, as in the original's extraction. ``docs/method.md``, "Negative chips".
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np

from sniper.inference.backend import Backend
from sniper.inference.batches import OnError
from sniper.inference.config import InferenceConfig, MergeConfig, ProposeConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.windows import WindowTask
from sniper.pyramid import Pyramid


def propose_images(
    backend: Backend,
    images: Iterable[ImageInput],
    pyramid: Pyramid,
    inference: InferenceConfig,
    config: ProposeConfig,
    *,
    seed: int = 0,
    on_error: OnError | None = None,
) -> Iterator[ImageDetections]:
    """Proposals of any number of images, in their order, best first, labels 0.

    A backend that cannot propose gives its detections, their classes dropped. ``inference`` says how images are cut
    into windows and batched; its ``merge`` and ``focus`` do not matter: false positives lie everywhere, and so must the
    windows. ``seed`` draws the windows where ``config.window_share`` leaves some out.
    """

    def drawn(keys: list[int], tasks: list[WindowTask]) -> list[WindowTask]:
        chosen: list[WindowTask] = []
        for (image, level), group in groupby(tasks, lambda task: (task.window.image, task.window.level)):
            windows = list(group)
            random = np.random.default_rng((seed, keys[image], level)).random(len(windows))
            chosen += [windows[k] for k in np.flatnonzero(random < config.window_share)]
        return chosen

    levels = tuple(level.model_copy(update={"infer_range_px": (0.0, None)}) for level in pyramid.levels)
    merge = MergeConfig(
        method="hard",
        iou_threshold=config.nms_iou,
        score_threshold=0,
        max_per_image=config.max_per_image,
        full_megapixels=None,
    )
    yield from detect_images(
        backend,
        images,
        pyramid.model_copy(update={"levels": levels}),
        inference.model_copy(update={"merge": merge, "focus": None}),
        regions="proposals" if config.boxes == "proposals" and backend.proposes else "detections",
        class_free=True,
        min_score=config.min_score,
        choose=drawn if config.window_share < 1 else None,
        on_error=on_error,
    )
