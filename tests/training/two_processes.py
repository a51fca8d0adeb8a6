"""What each process of test_processes.py does: train, train in two pieces, and write down what came of it.

accelerate launch --num_processes 2 --cpu two_processes.py FOLDER
"""

import json
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import accelerate
import torch
from tiny import RandomEpoch, RandomSource, TinyDetector, mean_score

from sniper.structures import Batch
from sniper.training.devices import on_main, wait_for_everyone
from sniper.training.loop import Evaluated, TrainConfig, TrainResult, train
from sniper.training.run import RunFolder

CONFIG = TrainConfig(
    epochs=2, ema=0.9, accumulate=2, clip_norm=1.0, learning_rate=0.05, warmup_steps=2, log_every=1, evaluate_every=1,
    tensorboard=False, device="cpu", best_metric="AP",
)  # fmt: skip


def build() -> TinyDetector:
    torch.manual_seed(0)
    return TinyDetector(norm="group", dropout=0.0)


def grouped(folder: Path, accumulate: int) -> TinyDetector:
    """Trained on three batches an epoch, in groups of so many."""
    detector = build()
    config = CONFIG.model_copy(update={"accumulate": accumulate})
    train(detector, RandomSource(3, grows=False), config, RunFolder(folder), evaluate=mean_score)
    return detector


def buffers_seen(folder: Path) -> list[float]:
    """Of batch norm, as seen before each epoch, by the evaluations and at the end of training."""
    torch.manual_seed(0)
    detector, seen = TinyDetector(norm="batch", dropout=0.0), []

    def look(*given: object) -> Evaluated:
        seen.append(sum(buffer.double().sum().item() for buffer in given[-1].buffers()))
        return Evaluated({"AP": 0.0})

    train(detector, RandomSource(3), CONFIG, RunFolder(folder), before_epoch=look, evaluate=look)
    look(detector)
    return seen


class StopOnSecond(RandomSource):
    """Only the second process is asked to stop: both must."""

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "StopEpoch":
        return StopEpoch(super().epoch(epoch, first_batch, rank, world_size), first_batch, (epoch, rank))


class StopEpoch:
    def __init__(self, inner: RandomEpoch, first: int, key: tuple[int, int]) -> None:
        self.inner, self.first, self.key = inner, first, key
        self.num_batches = inner.num_batches

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self.inner, self.first):
            if self.key == (1, 1) and index == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch


def as_beside_a_gpu() -> None:
    """Where there is no GPU, torch says that there is one: what stays on the CPU must not ask for it.

    A barrier asks for a tensor on the GPU of the process' number if it is told that number.
    """
    if not torch.accelerator.is_available():
        torch._C._get_accelerator = lambda *given: torch.device("cuda")


def main() -> None:
    torch.set_num_threads(1)
    as_beside_a_gpu()
    logging.basicConfig(level=logging.INFO)
    root = Path(sys.argv[1])

    def once(name: str, source: RandomSource, **given: object) -> tuple[TinyDetector, TrainResult]:
        detector = build()
        run = on_main(lambda: RunFolder(root / name))
        return detector, train(detector, source, CONFIG, run, evaluate=mean_score, **given)

    detector, whole = once("whole", RandomSource())
    _, first = once("pieces", StopOnSecond())
    pieces, second = once("pieces", RandomSource(), resume=True)
    wait_for_everyone()
    short, exact = (grouped(root / f"groups{size}", size) for size in (4, 3))
    rank = accelerate.PartialState().process_index
    report = {
        "rank": rank,
        "processes": accelerate.PartialState().num_processes,
        "weights": [p.double().sum().item() for p in detector.parameters()],
        "pieces_equal_whole": all(
            torch.equal(a, b) for a, b in zip(detector.parameters(), pieces.parameters(), strict=True)
        ),
        "short_group_is_a_mean": all(
            torch.equal(a, b) for a, b in zip(short.parameters(), exact.parameters(), strict=True)
        ),
        "buffers": buffers_seen(root / "buffers"),
        "steps": [whole.step, first.step, second.step],
        "finished": [whole.finished, first.finished, second.finished],
        "chips": whole.chips,
        "metrics": whole.metrics,
    }
    (root / f"rank{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
