"""Weights that come with the package, for where there is no network."""

from pathlib import Path

from sniper.errors import CheckpointError

OBJECTS = "sniper/objects"  # the detector of things of any kind, by name in place of a checkpoint
_FILES = {"torchvision/mobilenet_v2": ("demo", "data", "mobilenet_v2_imagenet_fp16.safetensors")}
_OBJECTS_FILE = ("new_classes", "objects_fp16.safetensors")


def shipped(name: str) -> Path | None:
    """The file of a backbone's ImageNet weights inside the package: an earlier version than torchvision's present one,
    in half precision. None: there is none.
    """
    path = _inside(_FILES[name]) if name in _FILES else None
    return path if path is not None and path.is_file() else None


def shipped_hint() -> str:
    """Which weights are shipped, for messages."""
    found = [f"{name}: {path}" for name in _FILES if (path := shipped(name)) is not None]
    return f"shipped with this package, for {', '.join(found)}"


def is_objects(place: Path | str) -> bool:
    """Whether ``place`` names the shipped detector of things of any kind, and is not a file or folder of that name."""
    words = place.as_posix() if isinstance(place, Path) else place
    return words == OBJECTS and not Path(place).exists()


def objects_files() -> tuple[Path, Path]:
    """Weights of that detector: of its trunk, and of all else.

    Raises:
        CheckpointError: one is gone.
    """
    files = _inside(_FILES["torchvision/mobilenet_v2"]), _inside(_OBJECTS_FILE)
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path}: a file of the sniper package was expected here but is gone; reinstall it")
    return files


def _inside(parts: tuple[str, ...]) -> Path:
    return Path(__file__).parents[1].joinpath(*parts)
