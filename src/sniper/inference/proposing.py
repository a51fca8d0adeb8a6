"""Class-free proposals over all levels: what negative chips are mined from.

Every level is looked at as in detection; no range of sizes limits what it may propose, and the boxes of all levels
compete together in one greedy NMS, as in the original's extraction. ``docs/method.md``, "Negative chips".
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from sniper.config import Config
from sniper.detectors.protocol import Detector, Proposer
from sniper.inference.merge import MergeConfig
from sniper.inference.pyramid import InferenceConfig, Picture, PictureDetections, detect_images
from sniper.inference.reading import Lost
from sniper.inference.windows import Look
from sniper.scales import Pyramid
from sniper.structures import Detections, Images


class ProposeConfig(Config):
    """How proposals are extracted."""

    nms_iou: float = Field(0.7, gt=0, le=1, description="IoU above which the weaker of two proposals goes, all levels")
    top: int | None = Field(None, ge=1, description="best proposals kept of an image; null: all")
    min_score: float = Field(0.0, ge=0, le=1, description="proposals with a lower score are dropped")
    boxes: Literal["proposals", "detections"] = Field(
        "proposals", description="what is asked for: class-free proposals, or finished detections, classes dropped"
    )
    window_share: float = Field(
        1.0, gt=0, le=1, description="chance of each window of the pyramid to be looked at; below 1 for large data sets"
    )


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
    pictures: Iterable[Picture],
    pyramid: Pyramid,
    inference: InferenceConfig,
    config: ProposeConfig,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    lost: Lost | None = None,
) -> Iterator[PictureDetections]:
    """Proposals of any number of images, in their order, best first, labels 0.

    A detector without ``propose`` (see ``detectors.protocol.Proposer``) gives its detections, their classes dropped.
    ``inference`` says how images are looked at; its ``merge`` does not matter. The detector must be in evaluation mode
    and on ``device``. ``seed`` draws the windows where ``config.window_share`` leaves some out.
    """

    def some(keys: list[int], looks: list[Look]) -> list[Look]:
        groups = groupby(looks, lambda look: (look.window.image, look.window.level))
        return [look for place, group in groups for look in _drawn(list(group), (seed, keys[place[0]], place[1]))]

    def _drawn(windows: list[Look], key: tuple[int, int, int]) -> list[Look]:
        chosen = np.random.default_rng(key).random(len(windows)) < config.window_share
        return [windows[k] for k in np.flatnonzero(chosen)]

    levels = tuple(level.model_copy(update={"infer_range_px": (0.0, None)}) for level in pyramid.levels)
    merge = MergeConfig(
        method="hard",
        iou_threshold=config.nms_iou,
        score_threshold=0,
        max_per_image=config.top,
        full_megapixels=None,
    )
    yield from detect_images(
        _Proposing(detector, config),
        pictures,
        pyramid.model_copy(update={"levels": levels}),
        inference.model_copy(update={"merge": merge}),
        device=device,
        choose=some if config.window_share < 1 else None,
        lost=lost,
    )
