"""Pascal VOC: one XML file an image."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sniper.data.building import ObjectRows, build_table
from sniper.data.options import IN_PYTHON, OptionNames
from sniper.data.readers.voc_folders import image_folders, voc_files
from sniper.data.table import AnnotationTable
from sniper.data.voc_pages import class_names, read_page

_NO_IMAGE = (".xml", ".txt", ".csv", ".json", ".yaml", ".yml")  # what else lies beside images


def read_voc(
    path: Path | str,
    split: str | None = None,
    *,
    image_root: Path | str | None = None,
    options: OptionNames = IN_PYTHON,
) -> AnnotationTable:
    """Read a folder with annotation files: ``Annotations``, ``annots``, ``xml`` or the like, or beside the images.

    Images are in ``JPEGImages``, ``images`` or the like, or beside their annotations; ``image_root`` replaces all of
    these. ``split`` is a list in ``ImageSets/Main``, or a folder (``train``, ``test``) with such a layout of its own;
    without it every annotated image is taken. Classes are all the names in all annotation files, sorted, whatever the
    split, so that splits agree. The inclusive corners that count from 1 become half-open boxes: ``x1 - 1, y1 - 1, x2,
    y2``; one whose corners are a single point is empty. Objects may be marked difficult, truncated and occluded.

    Raises:
        DataError: a folder, list or annotation is missing, or an XML file is damaged or incomplete.
    """
    folder = Path(path)
    files = voc_files(folder, split, options)
    places = image_folders(files.folder, files.pages) if image_root is None else [Path(image_root)]
    images = _Images(places)
    names = {name for page in files.others for name in class_names(page)}
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda file: read_page(file, images.find), files.pages))
    classes = sorted(names.union(*(page.names for page in pages)))
    index = {name: label for label, name in enumerate(classes)}
    corners = np.array([box for page in pages for box in page.corners], np.float64).reshape(-1, 4)
    clicked = (corners[:, :2] == corners[:, 2:]).all(axis=1)[:, None]  # an accident of labelling, left empty
    root = images.root(page.file for page in pages)
    return build_table(
        ObjectRows(
            image_row=np.repeat(np.arange(len(pages)), [len(page.names) for page in pages]),
            boxes_xyxy=corners - np.where(clicked, 0, [1, 1, 0, 0]),
            labels=np.array([index[name] for page in pages for name in page.names], np.int32),
            flags=np.array([flags for page in pages for flags in page.flags], np.uint8),
        ),
        source=folder if split is None else f"{folder} ({split})",
        root=root,
        file_names=[page.file.relative_to(root).as_posix() for page in pages],
        image_ids=None,
        sizes_wh=np.array([page.size_wh for page in pages], np.int64).reshape(-1, 2),
        class_names=classes,
    )


class _Images:
    """The images in some folders, found by the name of the file or of its annotation."""

    def __init__(self, places: list[Path]) -> None:
        self._likeliest = places[0]
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, Path] = {}
        for place in reversed(places):  # the likeliest overwrites
            names = sorted(file.name for file in place.iterdir()) if place.is_dir() else []
            images = [name for name in names if not name.lower().endswith(_NO_IMAGE)]
            self._by_name.update((name, place / name) for name in images)
            self._by_stem.update((Path(name).stem, place / name) for name in images)

    def find(self, page: Path, written: str) -> Path:
        """The image of an annotation file that calls it ``written``; a likely place for it if it is nowhere.

        Renamed sets keep the old name inside; the file of the annotation's own name is then meant.
        """
        found = self._by_name.get(written) or self._by_stem.get(page.stem)
        return found or self._likeliest / (written or f"{page.stem}.jpg")

    def root(self, files: Iterable[Path]) -> Path:
        """The folder that holds all of ``files``."""
        folders = {str(file.parent) for file in files}
        return Path(os.path.commonpath(folders)) if folders else self._likeliest
