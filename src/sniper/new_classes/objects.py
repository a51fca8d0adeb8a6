"""The name and the file of the detector of things of any kind; light: every verb asks for it when it starts."""

from pathlib import Path

OBJECTS = "sniper/objects"  # in place of a checkpoint
OBJECTS_FILE = Path(__file__).with_name("objects_fp16.safetensors")  # all its weights but the trunk's


def is_objects(place: Path | str) -> bool:
    """Whether ``place`` names that detector, and is not a file or folder of that name."""
    words = place.as_posix() if isinstance(place, Path) else place
    return words == OBJECTS and not Path(place).exists()
