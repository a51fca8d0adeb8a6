"""The loop with the reference detector and the chip loader: both are resumed exactly too."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from devices import bit_for_bit
from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.data.table import AnnotationTable
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import Sniper, build_sniper
from sniper.loader.config import AugmentConfig, LoaderConfig
from sniper.loader.stream import ChipLoader
from sniper.pyramid import Level, Pyramid
from sniper.structures import Batch
from sniper.training.loop import TrainConfig, TrainResult, train
from sniper.training.run import RunFolder

PYRAMID = Pyramid(
    levels=(Level(scale=1.0, train_range_px=(0.0, 40.0)), Level(scale=0.5, train_range_px=(20.0, None))),
    chip_px=128,
)


def squares(root: Path, count: int = 4) -> AnnotationTable:
    """Grey photos with bright squares of 12 to 60 px; the last one has none."""
    rng = np.random.default_rng(0)
    boxes = []
    for number in range(count):
        image = rng.integers(90, 120, (220, 300, 3), dtype=np.uint8)
        own = [
            (x, y, x + s, y + s)
            for x, y, s in zip(rng.integers(0, 230, 4), rng.integers(0, 150, 4), (12, 20, 40, 60), strict=True)
        ]
        for x1, y1, x2, y2 in own if number + 1 < count else []:
            image[y1:y2, x1:x2] = 230
            boxes.append((number, x1, y1, x2, y2))
        cv2.imwrite(str(root / f"{number}.png"), image)
    flat = np.asarray(boxes, np.float32)
    per_image = np.bincount(flat[:, 0].astype(int), minlength=count)
    return AnnotationTable(
        root=root,
        file_names=tuple(f"{i}.png" for i in range(count)),
        image_ids=np.arange(1, count + 1, dtype=np.int64),
        sizes_wh=np.full((count, 2), (300, 220), np.int32),
        offsets=np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64),
        boxes_xyxy=np.ascontiguousarray(flat[:, 1:]),
        labels=np.zeros(len(flat), np.int32),
        flags=np.zeros(len(flat), np.uint8),
        areas=((flat[:, 3] - flat[:, 1]) * (flat[:, 4] - flat[:, 2])),
        annotation_ids=np.arange(1, len(flat) + 1, dtype=np.int64),
        class_names=("square",),
        class_ids=np.asarray([1], np.int64),
    )


@dataclass
class Chips:
    """Mined chips through the loader; asks to stop before a batch of the second epoch if told to."""

    table: AnnotationTable
    workers: int = 0
    stop_at: int | None = None
    seen: list[int] = field(default_factory=list)

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "StoppingLoader":
        chips = mine(self.table, PYRAMID, ChipConfig(), seed=0, epoch=epoch)
        loader = LoaderConfig(batch_size=2, workers=self.workers)
        return StoppingLoader(
            self.table, chips, loader, AugmentConfig(), seed=0, epoch=epoch, rank=rank, world_size=world_size,
            first_batch=first_batch,
        ).stopping(self.stop_at if epoch == 1 else None)  # fmt: skip


class StoppingLoader(ChipLoader):
    def stopping(self, at: int | None) -> "StoppingLoader":
        self.at = at
        return self

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().__iter__()):
            if number == self.at:
                signal.raise_signal(signal.SIGTERM)
            yield batch


def build() -> Sniper:
    torch.manual_seed(0)
    return build_sniper(SniperConfig(weights=None, channels=16, rpn_channels=16, head_channels=8, head_width=16), 1)


def run(table: AnnotationTable, folder: Path, *, resume: bool = False, **source: int) -> tuple[Sniper, TrainResult]:
    config = TrainConfig(epochs=2, ema=0.9, learning_rate=0.01, warmup_steps=2, log_every=1, tensorboard=False)
    detector = build()
    return detector, train(detector, Chips(table, **source), config, RunFolder(folder), resume=resume)


@pytest.mark.slow
@bit_for_bit
def test_reference_detector_on_mined_chips_in_two_pieces(tmp_path: Path) -> None:
    table = squares(tmp_path)
    whole, result = run(table, tmp_path / "whole")
    assert result.finished
    assert result.chips == 2 * result.step
    _, first = run(table, tmp_path / "pieces", stop_at=1, workers=1)
    assert not first.finished
    assert 1 < first.epochs < 2
    pieces, second = run(table, tmp_path / "pieces", resume=True)
    assert second.step == result.step
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, pieces.state_dict()[name]), name
    rows = RunFolder(tmp_path / "pieces").read_metrics()
    assert [row["step"] for row in rows] == list(range(1, result.step + 1))
    assert {"loss/rpn_class", "loss/rpn_box", "loss/class", "loss/box", "images_per_s"} <= rows[0].keys()
