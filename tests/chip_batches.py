"""Batches of a few chips with learned and ignored objects and crowds, and what a detector learns from them."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from sniper.nn.mask_targets import encode_polygons
from sniper.structures import Batch, ObjectState
from sniper.training.loop import TrainConfig, train
from sniper.training.run import RunFolder

VALID, IGNORED, CROWD, EMPTY = (int(ObjectState[name]) for name in ("VALID", "IGNORED", "CROWD", "EMPTY"))
SIDE = 128
CHIPS = [
    [((20, 30, 60, 80), 0, VALID), ((70, 70, 120, 118), 1, VALID), ((78, 12, 112, 46), 2, IGNORED)],
    [((10, 10, 50, 62), 2, VALID), ((66, 60, 128, 126), 0, CROWD)],
]


def outlined(box: tuple[float, ...]) -> list:
    """One polygon, a diamond in the box."""
    x1, y1, x2, y2 = box
    return [torch.tensor([(x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2, x1, (y1 + y2) / 2]).numpy()]


def batch_of(chips: list, side: int = SIDE, valid_hw: list | None = None) -> Batch:
    """A chip is a list of (box, label, state)."""
    longest = max(map(len, chips), default=0)
    boxes = torch.zeros(len(chips), longest, 4)
    labels, state = (torch.full((len(chips), longest), -1) for _ in range(2))
    polygons = torch.full((len(chips), longest, 500), -1.0)
    for i, chip in enumerate(chips):
        for j, (box, label, kind) in enumerate(chip):
            boxes[i, j], labels[i, j], state[i, j] = torch.tensor(box, dtype=torch.float32), label, kind
            polygons[i, j] = torch.from_numpy(encode_polygons([outlined(box)], [label], (0, 0), 1.0)[0])
    return Batch(
        pixels=torch.rand(len(chips), 3, side, side, generator=torch.Generator().manual_seed(7)),
        valid_hw=torch.tensor(valid_hw or [[side, side]] * len(chips)),
        scale=torch.ones(len(chips)),
        boxes=boxes,
        labels=labels,
        state=state,
        range_px=torch.tensor([(0.0, math.inf)] * len(chips)),
        chip_index=torch.arange(len(chips)),
        polygons=polygons,
    )


def changed(batch: Batch, chip: int, slot: int, **what: object) -> Batch:
    columns = {name: getattr(batch, name).clone() for name in what}
    for name, value in what.items():
        columns[name][chip, slot] = torch.as_tensor(value, dtype=columns[name].dtype)
    return dataclasses.replace(batch, **columns)


def losses_and_gradients(detector: nn.Module, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
    detector.zero_grad()
    torch.manual_seed(5)
    losses = detector.losses(batch)  # type: ignore[operator]
    sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}
    return {name: loss.item() for name, loss in losses.items()}, gradients


def same(one: tuple, other: tuple) -> bool:
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


class OneEpoch:
    """Three times the chips above, from a batch on."""

    num_batches = 3

    def __init__(self, first_batch: int) -> None:
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[Batch]:
        return iter([batch_of(CHIPS)] * (self.num_batches - self.first_batch))


class OneSource:
    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> OneEpoch:
        return OneEpoch(first_batch)


def assert_resuming_is_exact(build: Callable[[], nn.Module], folder: Path) -> None:
    """Two steps of which one is resumed in a new detector end with the weights and buffers of two in one go."""

    def trained(name: str, steps: int, *, resume: bool = False) -> dict[str, Tensor]:
        config = TrainConfig(
            steps=steps, schedule="steps", warmup_steps=0, learning_rate=0.001, tensorboard=False, device="cpu"
        )
        detector = build()
        train(detector, OneSource(), config, RunFolder(folder / name), resume=resume)
        return detector.state_dict()

    whole, stopped = trained("whole", 2), trained("pieces", 1)
    resumed = trained("pieces", 2, resume=True)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert any(not torch.equal(stopped[name], value) for name, value in whole.items())
