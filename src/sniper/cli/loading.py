"""Importing what a verb runs, without looking for garbage meanwhile."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Inside, modules are imported without garbage collection, and what they made is left out of later ones.

    torch makes a million objects when it is imported. Searching them again and again takes a third of that time, and
    searching them once more, at the end of the program, two seconds.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
