"""Weights that come with the package, for where there is no network."""

from pathlib import Path

_FILES = {"torchvision/mobilenet_v2": ("demo", "data", "mobilenet_v2_imagenet_fp16.safetensors")}


def shipped(name: str) -> Path | None:
    """The file of a backbone's ImageNet weights inside the package: an earlier version than torchvision's present one,
    in half precision. None: there is none.
    """
    parts = _FILES.get(name)
    path = None if parts is None else Path(__file__).parents[1].joinpath(*parts)
    return path if path is not None and path.is_file() else None


def shipped_hint() -> str:
    """Which weights are shipped, for messages."""
    found = [f"{name}: {path}" for name in _FILES if (path := shipped(name)) is not None]
    return f"shipped with this package, for {', '.join(found)}"
