"""Fetching weights by name into a cache folder: resumed where broken, verified, never opened."""

from sniper.fetch.cache import Downloaded, cache_folder, cached, download
from sniper.fetch.names import Source, resolve
from sniper.fetch.transfer import Patience, Tick

__all__ = ["Downloaded", "Patience", "Source", "Tick", "cache_folder", "cached", "download", "resolve"]
