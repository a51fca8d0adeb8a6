"""Fixtures that find the recorded numbers, of which a part ships, and the third-party data, of which none does."""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import devices  # noqa: F401  it says how Triton's kernels run
from forked import Python, processes_interpreter, share_server, stop_server, worker_interpreter
from recorded import GOLDEN, Golden

ROOT = Path(__file__).resolve().parents[1]

# Collecting garbage again and again among the million objects of torch takes as long as all else of importing it: so
# this file does not import it, and test files are imported without.
gc.disable()

# The same examples in every run; to look for new and more ones: pytest --hypothesis-profile=explore.
settings.register_profile("explore", settings())
settings.register_profile("repeatable", derandomize=True, max_examples=50)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """One thread for each worker and for all that the tests start: there is a worker for each of two cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if _is_whole_suite(config) and not hasattr(config, "workerinput"):
        share_server()
        if sys.platform == "linux":
            config.option.tx = [f"popen//python={worker_interpreter()}" for _ in config.option.tx or ()]
    if interpreter := processes_interpreter():
        multiprocessing.set_executable(interpreter)


def pytest_collection_finish() -> None:
    """From here on, garbage is collected among what the tests make, and not among the modules that are imported."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # every 700 objects, a few layers of torch, takes 8 % of a training
    gc.enable()


def pytest_unconfigure() -> None:
    """End what was started for all tests."""
    stop_server()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for the whole suite. Files that are named run here: starting workers takes longer than most of them."""
    return 2 if _is_whole_suite(config) else 0


def _is_whole_suite(config: pytest.Config) -> bool:
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.fixture
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Python]:
    """``python ...`` in real processes, forked from one that has imported torch and sniper: fast, see ``forked.py``."""
    starting = Python(tmp_path_factory.mktemp("python"))
    yield starting
    starting.end()


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Numbers recorded from the original code: of SNIPER_GOLDEN, else the whole recording, else the shipped part."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Third-party images and annotations for tests; never part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"third-party test data are not here: {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    # Spinning threads on a busy machine cost more than the second core brings.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _heed_ctrl_c() -> None:
    """A shell that runs the tests in the background has them, and all that they start, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
