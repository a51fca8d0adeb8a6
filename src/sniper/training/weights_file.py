"""Which file of weights a path means; without torch, so that a wrong path is answered at once."""

from pathlib import Path

from sniper.errors import CheckpointError


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
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give a .safetensors file or a run folder")
    return path
