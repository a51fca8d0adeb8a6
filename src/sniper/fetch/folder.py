"""Where downloads and what takes long to find out are kept."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """``SNIPER_CACHE``, or the folder ``sniper`` where this system keeps caches."""
    if own := os.environ.get("SNIPER_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "sniper"
