"""Claim: SIGKILL at any moment costs nothing: every resume ends in the bits and files of an uninterrupted run.

A small detector is trained once without interruption, with a checkpoint after every step, evaluations, an average of
the weights and all that a finished run has. Then it is trained again and again, each time killed five times, each at a
random moment between the start and the exit of its process, and resumed to the end. Compared are the state (weights,
average, memory of the optimiser), the bytes of all weights and results, the numbers, and the names of all files. Prints
JSON: how many kills came when, and what differs.

    python benchmarks/kill_resume.py --kills 100
"""

import argparse
import gc
import hashlib
import json
import logging
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import torch._dynamo  # every optimiser imports it, slowly: once here instead of in each process
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rectangle_set import TINY, make_set
from sniper.errors import SniperError
from sniper.pipeline.model import load_model
from sniper.pipeline.train import train
from sniper.training.run import RunFolder

KILLS_A_RUN = 5
EXACT = "last.safetensors", "last-ema.safetensors", "best.safetensors", "predictions.json", "pr_curves.png"
CLOCKS = "minutes", "saved_minutes", "chips_per_s", "images_per_s", "seconds"


def attempt(run: Path, settings: list[str]) -> None:
    """One process' try to train to the end, from wherever the run is."""
    logging.getLogger("sniper").setLevel(logging.ERROR)
    if (run / "recipe.yaml").is_file():
        train(resume=run)
    else:
        train("mobilenetv2", overrides=settings, root=run.parents[1], name=run.name)


def launch(run: Path, settings: list[str]) -> multiprocessing.Process:
    """A training process. Forked, as importing torch takes longer than the training."""
    process = multiprocessing.get_context("fork").Process(target=attempt, args=(run, settings))
    process.start()
    return process  # type: ignore[return-value]


def moment(run: Path, steps: int) -> str:
    """Where a kill came, from what it left; every file of weights must be readable.

    Raises:
        SniperError: a file is damaged.
    """
    folder = RunFolder(run)
    for weights in (folder.last, folder.last_ema, folder.best):
        if weights.is_file():
            load_model(weights, device="cpu")
    if not folder.state.is_file():
        return "before the first checkpoint"
    position = torch.load(folder.state, weights_only=True)["position"]
    if position["evaluation_owed"]:
        return "in an evaluation"
    return "in training" if position["step"] < steps else "finishing"


def fingerprint(value: object) -> str:
    """A hash of all tensors and plain values in nested ones, clocks left out."""
    digest = hashlib.sha256()

    def eat(one: object) -> None:
        if isinstance(one, Tensor):
            digest.update(one.contiguous().numpy().tobytes())
        elif isinstance(one, dict):
            for key in sorted(one, key=str):
                if key not in CLOCKS:
                    digest.update(str(key).encode())
                    eat(one[key])
        elif isinstance(one, list | tuple):
            for item in one:
                eat(item)
        else:
            digest.update(repr(one).encode())

    eat(value)
    return digest.hexdigest()


def told(run: Path) -> dict[str, object]:
    """All that must be the same of two finished runs, by file."""
    folder = RunFolder(run)
    return {
        "names": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
        "state.pt": fingerprint(torch.load(folder.state, weights_only=True)),
        "metrics.json": fingerprint(json.loads((run / "metrics.json").read_text())),
        "metrics.csv": fingerprint(folder.read_metrics()),
        **{name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in EXACT},
    }


def measure(kills: int, steps: int, seed: int, root: Path) -> dict[str, object]:
    """The uninterrupted run, the killed ones, and what came of them."""
    data, val = make_set(root / "data"), make_set(root / "val", images=3, seed=1)
    settings = [
        *TINY, f"data.train={data}", f"data.evaluate={val}", f"train.steps={steps}", "train.device=cpu",
        "train.ema=0.9", "train.checkpoint_every_steps=1", "train.evaluate_every=0.2", "model.head_width=128",
    ]  # fmt: skip
    runs = root / "runs" / "train"
    attempt(runs / "whole", settings)  # here: what it loads and compiles, forked processes have
    gc.collect()
    gc.freeze()  # else a collection in each forked process copies most of its memory
    begin = time.monotonic()
    launch(runs / "timed", settings).join()
    whole_s = time.monotonic() - begin
    expected = told(runs / "whole")

    rng = random.Random(seed)
    moments: Counter[str] = Counter()
    damaged, different, failed, writing, number = [], [], [], 0, 0
    while moments.total() < kills:
        number += 1
        run = runs / f"killed{number}"
        for _ in range(min(KILLS_A_RUN, kills - moments.total())):
            process = launch(run, settings)
            process.join(rng.uniform(0, whole_s))
            if process.exitcode is not None:  # it was faster: kill another one while it finishes again
                process = launch(run, settings)
                process.join(rng.uniform(0, 0.3 * whole_s))
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                continue
            writing += any(run.glob(".*.part"))
            try:
                moments[moment(run, steps)] += 1
            except SniperError as error:
                damaged.append(str(error))
        last = launch(run, settings)
        last.join()
        if last.exitcode != 0:
            failed.append(run.name)
            continue
        print(f"{run.name}: {moments.total()} kills so far", file=sys.stderr, flush=True)
        different += [f"{run.name}: {file}" for file, value in told(run).items() if value != expected[file]]
    return {
        "claim": "every resume after SIGKILL ends in the bits and files of an uninterrupted run",
        "kills": moments.total(),
        "kills_by_moment": dict(moments),
        "kills_while_writing_a_file": writing,
        "runs": number,
        "uninterrupted_s": round(whole_s, 2),
        "damaged": damaged,
        "failed_resumes": failed,
        "different": different,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # before anything runs: threads do not survive forking
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given.kills, given.steps, given.seed, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
