"""Class-free proposals over all levels: what negative chips are mined from.

Every level is looked at as in detection; no range of sizes limits what it may propose, and the boxes of all levels
compete together in one greedy NMS, as in the original's extraction. ``docs/method.md``, "Negative chips".
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import torch

from sniper.detectors.protocol import Detector, Proposer
from sniper.inference.batches import OnError
from sniper.inference.config import InferenceConfig, MergeConfig, ProposeConfig
from sniper.inference.detect import ImageDetections, ImageInput, detect_images
from sniper.inference.windows import WindowTask
from sniper.pyramid import Pyramid
from sniper.structures import Detections, Images


class _Proposing:
    """A detector whose detections are its proposals; those of one that proposes nothing are what it detects."""

    def __init__(self, detector: Detector, config: ProposeConfig) -> None:
        proposes = config.boxes == "proposals" and isinstance(detector, Proposer)
        self._ask = detector.propose if proposes else detector.detect  # type: ignore[attr-defined]
        self._min_score = config.min_score

    def losses(self, batch: object) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def detect(self, images: Images) -> list[Detections]:
        found = []
        for one in self._ask(images):
            kept = one.scores >= self._min_score
            labels = torch.zeros_like(one.labels[kept])
            found.append(Detections(one.boxes[kept], one.scores[kept], labels))
        return found


def propose_images(
    detector: Detector,
    pictures: Iterable[ImageInput],
    pyramid: Pyramid,
    inference: InferenceConfig,
    config: ProposeConfig,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    on_error: OnError | None = None,
) -> Iterator[ImageDetections]:
    """Proposals of any number of images, in their order, best first, labels 0.

    A detector without ``propose`` (see ``detectors.protocol.Proposer``) gives its detections, their classes dropped.
    ``inference`` says how images are looked at; its ``merge`` does not matter. The detector must be in evaluation mode
    and on ``device``. ``seed`` draws the windows where ``config.window_share`` leaves some out.
    """

    def some(keys: list[int], tasks: list[WindowTask]) -> list[WindowTask]:
        groups = groupby(tasks, lambda task: (task.window.image, task.window.level))
        return [task for place, group in groups for task in _drawn(list(group), (seed, keys[place[0]], place[1]))]

    def _drawn(windows: list[WindowTask], key: tuple[int, int, int]) -> list[WindowTask]:
        chosen = np.random.default_rng(key).random(len(windows)) < config.window_share
        return [windows[k] for k in np.flatnonzero(chosen)]

    levels = tuple(level.model_copy(update={"infer_range_px": (0.0, None)}) for level in pyramid.levels)
    merge = MergeConfig(
        method="hard",
        iou_threshold=config.nms_iou,
        score_threshold=0,
        max_per_image=config.max_per_image,
        full_megapixels=None,
    )
    yield from detect_images(
        _Proposing(detector, config),
        pictures,
        pyramid.model_copy(update={"levels": levels}),
        inference.model_copy(update={"merge": merge}),
        device=device,
        choose=some if config.window_share < 1 else None,
        on_error=on_error,
    )
