"""SIGKILL at random moments: the benchmark's own check, with fewer kills."""

import json
from pathlib import Path

from forked import Python

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_resume.py"


def test_killed_runs_resume_to_the_same_weights(python: Python) -> None:
    done = python.run(SCRIPT, "--kills", 3, "--steps", 24)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["unreadable"] == []
    assert report["kills"] > 0
    assert report["killed_and_resumed"] == {"exit": 0, "step": 24}
    assert report["same_weights_bit_for_bit"]
    assert report["leftovers"] == 0
