"""Claim: no damaged file makes a reader crash, hang, take all memory or show a trace: it is read or refused in a line.

    python benchmarks/fuzz.py [--annotations 10000] [--images 10000] [--seed 0] [--keep FOLDER]

Mutates small datasets (COCO, YOLO, Pascal VOC) and images (JPEG, PNG, TIFF, WebP), each case from its own seed, and
reads them in worker processes with a limit of time and memory. A worker that dies, of a fault in a C library say, is
replaced, and its death belongs to the case that it had begun. Prints JSON; exits with 1 if anything is wrong, and keeps
those files in FOLDER. One case again: ``--only jpeg:1234``.
"""

import argparse
import faulthandler
import json
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import fuzz_cases

SECONDS, GIGABYTES = 20.0, 3.0  # limits of one case; memory beyond what the modules take
SOUND = ("read", "refused")


class Case(NamedTuple):
    """One mutated file."""

    form: str
    number: int


@dataclass
class Tally:
    """What came of the cases."""

    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[tuple[Case, str]] = field(default_factory=list)
    slowest: tuple[float, Case | None] = (0.0, None)

    def add(self, case: Case, verdict: str, seconds: float) -> None:
        """Count a case; ``verdict`` is ``read``, ``refused``, or what is wrong: a word, and its explanation."""
        word = verdict.split(":", 1)[0]
        self.verdicts.setdefault(case.form, Counter())[word] += 1
        if word not in SOUND:
            self.wrong.append((case, verdict))
        self.slowest = max(self.slowest, (seconds, case), key=lambda one: one[0])


def judge(case: Case, seed: int, folder: Path) -> str:
    """Read a case in this process."""
    from sniper.errors import DataError

    path = fuzz_cases.write(case.form, case.number, seed, folder)
    try:
        fuzz_cases.read(case.form, path)
    except DataError as error:
        text = str(error)
        if "\n" in text or not text.strip():
            return f"message: not one line: {text!r}"
        return "refused" if str(folder) in text else f"message: names no file: {text!r}"
    except MemoryError:
        return f"memory: {_last_lines()}"
    except BaseException:
        return f"trace: {_last_lines()}"
    return "read"


def _last_lines() -> str:
    return " | ".join(line.strip() for line in traceback.format_exc().splitlines()[-5:])


def work(tasks: Connection, seed: int, folder: Path) -> None:
    """Read the cases that come until none does; each is announced before it begins."""
    faulthandler.enable(file=(folder / "fault.txt").open("w"))
    logging.disable(logging.CRITICAL)
    fuzz_cases.prepare(folder)
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limit = used + int(GIGABYTES * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tasks.send(None)
    while (case := tasks.recv()) is not None:
        tasks.send(judge(case, seed, folder))


class Worker:
    """A process that reads cases, and the case that it has."""

    def __init__(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.tasks, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=work, args=(theirs, seed, self.folder), daemon=True)
        self._process.start()
        theirs.close()
        self.case: Case | None = None
        self.began = time.monotonic()

    def give(self, case: Case | None) -> None:
        """The next case, or None at the end."""
        self.case, self.began = case, time.monotonic()
        self.tasks.send(case)

    def end(self) -> str:
        """Stop the process; how it died."""
        self._process.join(1)
        self._process.kill()
        self._process.join()
        fault = (self.folder / "fault.txt").read_text(errors="replace").strip().replace("\n", " | ")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.tasks.close()
        return f"exit code {self._process.exitcode}; {fault[:1500]}"


def run(cases: list[Case], seed: int, workers: int) -> Tally:
    """Read all cases."""
    tally, upcoming = Tally(), iter(cases)
    active = [Worker(seed) for _ in range(workers)]
    while active:
        ready = set(wait([worker.tasks for worker in active], timeout=1.0))
        for worker in list(active):
            case, seconds = worker.case, time.monotonic() - worker.began
            if worker.tasks in ready:
                try:
                    verdict = worker.tasks.recv()
                except (EOFError, ConnectionResetError):
                    verdict = f"crash: {worker.end()}"
                    active[active.index(worker)] = worker = Worker(seed)
                    if case is None:
                        raise RuntimeError(f"a worker cannot start: {verdict}") from None
                    tally.add(case, verdict, seconds)
                    continue
                if case is not None:
                    tally.add(case, verdict, seconds)
                following = next(upcoming, None)
                worker.give(following)
                if following is None:
                    worker.end()
                    active.remove(worker)
            elif case is not None and seconds > SECONDS:
                worker.end()
                active[active.index(worker)] = Worker(seed)
                tally.add(case, f"hang: over {SECONDS:.0f} s", seconds)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the files that something is wrong with")
    parser.add_argument("--only", help="one case, such as jpeg:1234, in this process")
    given = parser.parse_args()
    if given.only:
        form, number = given.only.split(":")
        folder = given.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
        folder.mkdir(parents=True, exist_ok=True)
        fuzz_cases.prepare(folder)
        print(judge(Case(form, int(number)), given.seed, folder), folder)
        return
    start = time.perf_counter()
    cases = [Case(fuzz_cases.ANNOTATIONS[i % 3], i) for i in range(given.annotations)]
    cases += [Case(fuzz_cases.IMAGES[i % 4], i) for i in range(given.images)]
    tally = run(cases, given.seed, given.workers)
    for case, _ in tally.wrong if given.keep else []:
        place = given.keep / f"{case.form}-{case.number}"
        place.mkdir(parents=True, exist_ok=True)
        fuzz_cases.prepare(place)
        fuzz_cases.write(case.form, case.number, given.seed, place)
    seconds, slowest = tally.slowest
    told = {
        "cases": len(cases),
        "seconds": round(time.perf_counter() - start, 1),
        "verdicts": {form: dict(sorted(counts.items())) for form, counts in sorted(tally.verdicts.items())},
        "slowest": [f"{slowest.form}:{slowest.number}" if slowest else None, round(seconds, 2)],
        "wrong": [[f"{case.form}:{case.number}", what[:600]] for case, what in tally.wrong[:40]],
    }
    print(json.dumps(told, indent=1))
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    os.nice(10)
    multiprocessing.set_start_method("forkserver")
    main()
