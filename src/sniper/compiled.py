"""The one way in which kernels of mining, focus, merging and evaluation are compiled."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba
import numpy as np
from numba import njit
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=np.generic)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Machine code for ``function``, kept on disk between runs and free of the interpreter lock.

    Kernels are single-threaded and work on a block of images; plain Python threads run the blocks. That
    needs no threading layer of numba's, which neither survives a fork nor allows calls from several threads.

    A kept kernel is made anew when its own file changes, but not when that of a kernel it calls does: touch the
    callers' files after such a change, or set ``NUMBA_CACHE_DIR`` to a fresh folder.
    """
    kernel: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return kernel


def thread_count() -> int:
    """Threads for compiled code: ``numba.config.NUMBA_NUM_THREADS``, from the environment or the number of cores.

    ``numba.get_num_threads`` would start numba's OpenMP pool, and that sets torch's number of threads too: sums would
    differ in their last bits from then on, and a resumed training from an uninterrupted one.
    """
    return int(numba.config.NUMBA_NUM_THREADS)


def read_only(column: NDArray[T]) -> NDArray[T]:
    """A contiguous view that cannot be written to.

    Columns of a table may be a process's own or mapped from a file, which kernels take for different types;
    through this view every table uses the one kernel that is compiled already.
    """
    view = np.ascontiguousarray(column).view(np.ndarray)
    view.flags.writeable = False
    return view
