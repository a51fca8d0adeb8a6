"""Seconds until the command line answers: help, and wrong arguments, recipes and paths, each in a process of its own.

    python benchmarks/start_up.py [--runs 15]

Prints JSON: of each command the shortest wall time of some runs, and the processor time of that run.
"""

import argparse
import json
import os
import subprocess
import sys
import time

COMMANDS = (
    "--help",
    "train --help",
    "trian",
    "train mobilnet",
    "train mobilenetv2 --data none.json",
    "predict none.safetensors x.jpg",
    "evaluate none.safetensors none.json",
    "chips stats none.json",
)


def measured(command: str, runs: int) -> dict[str, float]:
    """Seconds of the fastest of ``runs`` runs."""
    best = {"wall_s": float("inf")}
    for _ in range(runs):
        before, start = os.times(), time.perf_counter()
        subprocess.run([sys.executable, "-m", "sniper", *command.split()], capture_output=True, check=False)
        wall, after = time.perf_counter() - start, os.times()
        if wall < best["wall_s"]:
            used = after.children_user + after.children_system - before.children_user - before.children_system
            best = {"wall_s": round(wall, 3), "processor_s": round(used, 3)}
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    print(json.dumps({f"sniper {command}": measured(command, given.runs) for command in COMMANDS}, indent=1))
