"""Fetching weights by name into a cache folder: resumed where broken, verified, never opened."""

from sniper.fetch.cache import Downloaded, cached, download
from sniper.fetch.folder import cache_folder
from sniper.fetch.names import Source, resolve
from sniper.fetch.transfer import OnProgress, Patience

__all__ = ["Downloaded", "OnProgress", "Patience", "Source", "cache_folder", "cached", "download", "resolve"]
