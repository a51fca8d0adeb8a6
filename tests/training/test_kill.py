"""SIGKILL at random moments: the benchmark's own check, with fewer kills."""

import json
from pathlib import Path

from forked import Python

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_resume.py"


def test_killed_runs_resume_to_the_same_files(python: Python) -> None:
    done = python.run(SCRIPT, "--kills", 2, "--steps", 3)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["kills"] == 2
    assert report["damaged"] == report["failed_resumes"] == report["different"] == []
