"""A real detector of a few thousand weights and random chips that are a pure function of where they are."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.structures import Batch, Detections, Images, ObjectState
from sniper.training.loop import Evaluated

CHIP_PX = 32
STRIDE = 4


class TinyDetector(nn.Module):
    """Two convolutions and an anchor-free head: objectness and box distances per cell."""

    def __init__(self, norm: str = "batch", dropout: float = 0.1) -> None:
        super().__init__()
        normalise = nn.BatchNorm2d(16) if norm == "batch" else nn.GroupNorm(4, 16)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            normalise,
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(16, 5, 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out = self.head(self.body(batch.pixels)).float()
        target = torch.zeros_like(out[:, 0])
        centre = ((batch.boxes[..., :2] + batch.boxes[..., 2:]) / 2 / STRIDE).long().clamp(0, CHIP_PX // STRIDE - 1)
        chip, slot = batch.valid.nonzero(as_tuple=True)
        x, y = centre[chip, slot].unbind(-1)
        target[chip, y, x] = 1
        sides = (batch.boxes[chip, slot, 2:] - batch.boxes[chip, slot, :2]) / CHIP_PX
        found = out[chip, 3:, y, x]
        return {
            "objectness": functional.binary_cross_entropy_with_logits(out[:, 0], target),
            "box": (found - sides).abs().sum() / (8 * len(batch)),
        }

    @torch.no_grad()
    def detect(self, images: Images) -> list[Detections]:
        scores = self.head(self.body(images.pixels))[:, 0].flatten(1).sigmoid()
        return [
            Detections(boxes=torch.zeros(len(s), 4), scores=s, labels=torch.zeros(len(s), dtype=torch.long))
            for s in scores
        ]


def make_batch(seed: tuple[int, ...], chips: int = 4, objects: int = 3) -> Batch:
    """Random chips and boxes; every fourth chip is empty."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, CHIP_PX - 8, (chips, objects, 2))
    side = random.uniform(1, 8, (chips, objects, 2))
    state = np.full((chips, objects), ObjectState.VALID)
    state[::4] = ObjectState.EMPTY
    return Batch(
        pixels=torch.from_numpy(random.integers(0, 256, (chips, 3, CHIP_PX, CHIP_PX), dtype=np.uint8)),
        valid_hw=torch.full((chips, 2), CHIP_PX),
        scale=torch.ones(chips),
        boxes=torch.from_numpy(np.concatenate([corner, corner + side], -1).astype(np.float32)),
        labels=torch.from_numpy(np.where(state == ObjectState.VALID, 0, -1)),
        state=torch.from_numpy(state.astype(np.int64)),
        range_px=torch.tensor([[0.0, torch.inf]]).repeat(chips, 1),
        chip_index=torch.arange(chips),
    )


class RandomEpoch:
    """The batches of one epoch from one on; draws from torch's generator as a DataLoader would."""

    def __init__(self, key: tuple[int, int], first_batch: int, num_batches: int, chips: int) -> None:
        self._key, self._first, self._chips = key, first_batch, chips
        self.num_batches = num_batches
        self.decodes = 0

    def __iter__(self) -> Iterator[Batch]:
        torch.empty((), dtype=torch.int64).random_()
        for batch in range(self._first, self.num_batches):
            self.decodes += 2
            yield make_batch((*self._key, batch), self._chips)


class RandomSource:
    """Epochs of different length, as chips give them."""

    def __init__(self, num_batches: int = 7, chips: int = 4, *, grows: bool = True) -> None:
        self._num_batches, self._chips, self._grows = num_batches, chips, grows

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> RandomEpoch:
        return RandomEpoch((epoch, rank), first_batch, self._num_batches + epoch * self._grows, self._chips)


def mean_score(detector: nn.Module) -> Evaluated:
    """An evaluation: how sure the detector is on two fixed chips. Draws random numbers, as an evaluation may."""
    torch.rand(3)
    batch = make_batch((99,)).to(next(detector.parameters()).device)
    scores = torch.cat([d.scores for d in detector.detect(batch)])  # type: ignore[operator]
    return Evaluated({"AP": float(scores.mean()), "AP50": float(scores.max())}, (float(scores.min()),))
