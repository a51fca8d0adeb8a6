"""The one way in which chip code is compiled."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Machine code for ``function``, kept on disk between runs and free of the interpreter lock.

    Kernels are single-threaded and work on a block of images; plain Python threads run the blocks. That
    needs no threading layer of numba's, which neither survives a fork nor allows calls from several threads.
    """
    kernel: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return kernel
