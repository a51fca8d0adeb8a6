"""Which files are meant by files, globs and folders; nothing is opened, and nothing that can open them is loaded."""

import glob
from collections.abc import Iterable
from pathlib import Path

from sniper.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})


def expand(sources: Iterable[str | Path]) -> list[Path]:
    """Files that files, folders and globs stand for, each once, in order.

    Raises:
        DataError: something matches nothing, or is no image or video.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
            if not inside:
                raise DataError(
                    f"{path}: no images or videos in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
                )
            found.update(dict.fromkeys(inside))
        elif path.is_file():
            found[path] = None
        else:
            matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))  # noqa: PTH207  absolute globs too
            matches = [match for match in matches if match.is_file()]
            if not matches:
                raise DataError(f"{source}: no such file, folder or match; give images, globs, folders or videos")
            found.update(dict.fromkeys(matches))
    return list(found)


def distinct_stems(paths: Iterable[Path]) -> list[str]:
    """A name for what is made of each file: its own without the suffix, numbered where folders repeat one."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken:  # some file systems take a.jpg and A.jpg for one
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def is_video(path: Path) -> bool:
    """Whether a path is read as a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES
