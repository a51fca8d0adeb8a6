"""Which file of weights a path means; without torch, so that a wrong path is answered at once."""

from pathlib import Path

from sniper.detectors.from_torchvision.builders import library_name
from sniper.detectors.from_transformers.models import model_name
from sniper.errors import CheckpointError
from sniper.new_classes.objects import is_objects


def is_named(place: Path | str) -> bool:
    """Whether ``place`` is the name of a detector with weights of its own, in place of a file.

    Raises:
        RecipeError: it begins as such a name does, and there is none.
    """
    return is_objects(place) or library_name(place) is not None or model_name(place) is not None


def checkpoint_file(checkpoint: Path | str) -> Path:
    """The weights file that a path means.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(checkpoint)
    if path.is_dir():
        for name in ("best.safetensors", "last-ema.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise CheckpointError(
            f"{path}: no best.safetensors or last.safetensors in this folder; give a run folder or a file"
        )
    if not path.is_file() and is_named(path):
        raise CheckpointError(f"{path} names a detector, not weights to start from; give a checkpoint or a run folder")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give a .safetensors file or a run folder")
    return path
