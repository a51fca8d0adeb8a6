"""Importing without garbage collection."""

from forked import Python


def test_garbage_is_left_alone_while_torch_is_imported_and_looked_for_afterwards(python: Python) -> None:
    code = """
import gc, sys
from sniper.cli.loading import importing
with importing():
    assert gc.isenabled(), "torch is here already"
torch = sys.modules.pop("torch")
gc.unfreeze()
try:
    with importing():
        assert not gc.isenabled()
        raise ImportError("a library is missing")
except ImportError:
    pass
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000
"""
    done = python.run("-c", code)
    assert done.returncode == 0, done.stderr
