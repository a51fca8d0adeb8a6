"""ImageNet: images by synset, some with boxes in XML files, and ILSVRC's localisation and detection tasks."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.data.building import ObjectRows, build_table
from sniper.data.options import IN_PYTHON, OptionNames
from sniper.data.readers.imagenet_files import class_names, files_by_stem, imagenet_files, images_by_stem
from sniper.data.table import AnnotationTable
from sniper.data.voc_pages import VocPage, read_page
from sniper.errors import DataError

logger = logging.getLogger("sniper")


def read_imagenet(
    path: Path | str,
    split: str | None = None,
    *,
    image_root: Path | str | None = None,
    options: OptionNames = IN_PYTHON,
) -> AnnotationTable:
    """Read folders named as synsets, with XML files of boxes in ``Annotation``, or an unpacked ILSVRC archive.

    Classes are those of ``classes.txt``, ``synset_words.txt``, ``LOC_synset_mapping.txt`` or ``synsets.txt``: a synset
    and its name a line, plain text. Without such a list they are all synsets that have boxes, sorted. Images without a
    file of boxes, files of boxes without an image, and objects of synsets that are not on the list are left out and
    counted in one line each; an image whose file has no object is kept. Corners count from 0, both ends inclusive:
    ``x1, y1, x2 + 1, y2 + 1`` is the half-open box.

    Raises:
        DataError: nothing is there, or a file is damaged or incomplete.
    """
    folder = Path(path)
    files = imagenet_files(folder, split, options)
    source = folder if split is None else f"{folder} ({split})"
    root = files.images if image_root is None else Path(image_root)
    images, boxed = images_by_stem(root), files_by_stem(files.pages, (".xml",))
    there = [stem for stem in boxed if stem in images]
    if not there:
        raise DataError(
            f"{source}: none of {len(boxed)} XML files with boxes belongs to one of {len(images)} images in {root}; "
            f"give the folder of the images with {options.images}"
        )
    for count, what in (
        (len(images) - len(there), "images have no file of boxes"),
        (len(boxed) - len(there), f"files of boxes have no image in {root}"),
    ):
        if count:
            logger.warning("%s: %d %s and are left out", source, count, what)
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda stem: read_page(boxed[stem], lambda *_: images[stem]), there))
    names = _names(files.classes, pages)
    return build_table(
        _objects(source, pages, list(names)),
        source=source,
        root=root,
        file_names=[os.path.relpath(page.file, root).replace(os.sep, "/") for page in pages],
        image_ids=None,
        sizes_wh=np.array([page.size_wh for page in pages], np.int64).reshape(-1, 2),
        class_names=list(names.values()),
    )


def _names(file: Path | None, pages: Sequence[VocPage]) -> dict[str, str]:
    """The name of each synset that is a class."""
    if file is not None:
        return class_names(file)
    return {synset: synset for synset in sorted({name for page in pages for name in page.names})}


def _objects(source: Path | str, pages: Sequence[VocPage], synsets: list[str]) -> ObjectRows:
    index = {synset: label for label, synset in enumerate(synsets)}
    counts = [len(page.names) for page in pages]
    labels = np.array([index.get(name, -1) for page in pages for name in page.names], np.int32)
    known = labels >= 0
    if not known.all():
        logger.warning("%s: %d of %d objects are of synsets that the list of classes lacks and are left out",
                       source, (~known).sum(), len(known))  # fmt: skip
    corners = np.array([box for page in pages for box in page.corners], np.float64).reshape(-1, 4)
    sizes = np.repeat(np.array([page.size_wh for page in pages], np.float64).reshape(-1, 2), counts, axis=0)
    return ObjectRows(
        image_row=np.repeat(np.arange(len(pages)), counts)[known],
        boxes_xyxy=_half_open(corners, sizes)[known],
        labels=labels[known],
        flags=np.array([flags for page in pages for flags in page.flags], np.uint8)[known],
    )


def _half_open(corners: NDArray[np.float64], sizes_wh: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 4) boxes of inclusive corners; many files say the width for its last pixel, which is meant."""
    far = corners[:, 2:] + 1
    return np.concatenate([corners[:, :2], np.where(far == sizes_wh + 1, sizes_wh, far)], axis=1)
