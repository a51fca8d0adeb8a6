"""Claim: SIGKILL at any moment leaves every checkpoint readable, and resuming works each time.

A small detector is trained once without interruption, and once by processes that are killed at random moments, the
next one resuming. A checkpoint is written after every step, so that many kills fall into the writing of one. Prints
JSON: both runs, the kills, and whether the weights came out the same bit for bit.

    python benchmarks/kill_resume.py --kills 10
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch._dynamo  # every optimiser imports it, slowly: once here instead of in each process
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "training"))

from tiny import RandomEpoch, RandomSource, TinyDetector, mean_score

from sniper.errors import SniperError
from sniper.training.checkpoint import load_detector_weights, load_state
from sniper.training.loop import TrainConfig, train
from sniper.training.run import RunFolder

BALLAST = 1_000_000  # weights that only make checkpoints larger, hence their writing longer


def build() -> nn.Module:
    """The same detector in every process."""
    torch.manual_seed(0)
    detector = TinyDetector()
    detector.ballast = nn.Parameter(torch.randn(BALLAST))
    plain = detector.losses
    detector.losses = lambda batch: plain(batch) | {"ballast": detector.ballast.square().mean()}  # type: ignore[method-assign]
    return detector


class Announcing(RandomSource):
    """Says when the first batch is asked for."""

    def __init__(self, started: multiprocessing.Event) -> None:  # type: ignore[valid-type]
        super().__init__()
        self.started = started

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> RandomEpoch:
        self.started.set()
        return super().epoch(epoch, first_batch, rank, world_size)


def attempt(folder: Path, steps: int, started: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    """One process' try to train to the end, from wherever the run is."""
    torch.set_num_threads(1)
    config = TrainConfig(
        steps=steps, ema=0.9, accumulate=2, checkpoint_every_steps=1, log_every=3, evaluate_every=1, tensorboard=False
    )
    train(build(), Announcing(started), config, RunFolder(folder), evaluate=mean_score, resume=True)


def look(folder: Path) -> int:
    """Read every file of the run as resuming and users would; the step of its state (-1: none yet)."""
    run, detector = RunFolder(folder), build()
    for weights in (run.last, run.last_ema, run.best):
        if weights.is_file():
            load_detector_weights(detector, weights)
    run.read_metrics()
    return int(load_state(run.state, detector)["position"]["step"]) if run.state.is_file() else -1


def fingerprint(folder: Path) -> str:
    """A hash of weights, their average and the optimiser's memory."""
    digest = hashlib.sha256()

    def eat(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                eat(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                eat(item)

    state = load_state(folder / "state.pt", build())
    eat([state["model"], state["average"], state["optimizer"]])
    return digest.hexdigest()


def launch(folder: Path, steps: int) -> multiprocessing.Process:
    """A training process at its first batch. Forked, as importing torch takes longer than the training."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=attempt, args=(folder, steps, started))
    process.start()
    started.wait(60)
    return process  # type: ignore[return-value]


def run(kills: int, steps: int, seed: int, root: Path) -> dict[str, object]:
    """Both trainings and what came of them."""
    whole = launch(root / "whole", steps)
    begin = time.monotonic()
    whole.join()
    whole_s = time.monotonic() - begin

    rng = random.Random(seed)
    moments, records, reached, unreadable = 0, [], -1, []
    while moments < kills:
        process = launch(root / "killed", steps)
        # Later pieces start further on: aim so that all kills come before the end.
        time.sleep(rng.uniform(0, 1.2 * whole_s / kills))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        moments += 1
        torn = sorted(p.name.split(".part")[0] for p in (root / "killed").glob(".*.part"))
        try:
            step = look(root / "killed")
        except SniperError as error:
            unreadable.append(str(error))
            step = reached
        records.append({"step": step, "while_writing": torn})
        assert step >= reached, "a checkpoint was lost"
        reached = step
        assert process.exitcode == -signal.SIGKILL
    last = launch(root / "killed", steps)
    last.join()
    return {
        "claim": "SIGKILL at random moments never leaves an unreadable checkpoint, and resuming works each time",
        "kills": moments,
        "kills_while_writing": sum(bool(record["while_writing"]) for record in records),
        "moments": records,
        "unreadable": unreadable,
        "uninterrupted": {"exit": whole.exitcode, "step": look(root / "whole"), "seconds": round(whole_s, 2)},
        "killed_and_resumed": {"exit": last.exitcode, "step": look(root / "killed")},
        "same_weights_bit_for_bit": fingerprint(root / "whole") == fingerprint(root / "killed"),
        "leftovers": len(list((root / "killed").glob(".*.part"))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(given.kills, given.steps, given.seed, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
