"""What some systems do not have is not needed: Windows has neither ``resource`` nor ``fcntl``."""

import json

from forked import Python

IMPORT_ALL = """
import builtins, importlib, json, pkgutil, sys

found = builtins.__import__

def windows(name, globals=None, *given, **named):
    # Of this package alone: on this system, libraries import both.
    if name in ("resource", "fcntl") and (globals or {}).get("__name__", "").startswith("sniper"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return found(name, globals, *given, **named)

builtins.__import__ = windows
# Loaded already, and the slow part: what other libraries have imported stays.
for module in [name for name in sys.modules if name.partition(".")[0] == "sniper"]:
    del sys.modules[module]
import sniper
absent = {}
for module in pkgutil.walk_packages(sniper.__path__, "sniper."):
    if module.name != "sniper.__main__":
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            absent[module.name] = str(error)
print(json.dumps(absent))
"""
EXTRAS = ("sahi", "rasterio")  # of which a test machine may lack some


def test_every_module_can_be_imported_without_what_windows_lacks(python: Python) -> None:
    done = python.run("-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr[-2000:]
    absent = json.loads(done.stdout)
    assert not {module: why for module, why in absent.items() if not any(extra in why for extra in EXTRAS)}
