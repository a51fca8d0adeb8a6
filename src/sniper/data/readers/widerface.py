"""WIDER FACE: the official text and MATLAB files, found in their usual layout, with the images beside them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.data.building import ObjectRows, build_table
from sniper.data.columns import ragged_rows
from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.image_sizes import sizes_of_images
from sniper.data.options import IN_PYTHON, OptionNames
from sniper.data.readers.widerface_files import image_folders, wider_file
from sniper.data.table import AnnotationTable
from sniper.data.wider_faces import WiderFaces, read_faces
from sniper.errors import DataError

logger = logging.getLogger("sniper")


def read_wider(
    path: Path | str,
    split: str | None = None,
    *,
    image_root: Path | str | None = None,
    skip_bad_images: bool = False,
    options: OptionNames = IN_PYTHON,
) -> AnnotationTable:
    """Read ``wider_face_<split>_bbx_gt.txt`` or ``wider_face_<split>.mat``, or the folder that holds them.

    Images are in ``WIDER_<split>/images`` beside them; ``image_root`` replaces it. Images that are not there are left
    out and counted in one line. Where none is there, for detections that were made elsewhere, the sizes of images are
    those that hold their faces, with a warning. Faces marked invalid are difficult: neither to be found nor wrong to
    find, and never learned. Images without a face are kept. ``skip_bad_images`` leaves out images whose header cannot
    be read.

    Raises:
        DataError: a file is missing or damaged, or its counts disagree; an image cannot be read.
    """
    place = Path(path)
    file = place if place.is_file() else wider_file(place, split, options)
    faces = read_faces(file)
    folders = [Path(image_root)] if image_root is not None else image_folders(file)
    root = next((folder for folder in folders if _there(folder, faces.names).any()), folders[0])
    there = _there(root, faces.names)
    unreadable: list[DataError] = []
    if there.any():
        if not there.all():
            logger.warning("%s: %d of %d images are not in %s and are left out", file, (~there).sum(), len(there), root)
        found = sizes_of_images(root, [name for name, is_there in zip(faces.names, there, strict=True) if is_there])
        sizes, unreadable = found.sizes_wh, found.unreadable
        readable = sizes[:, 0] > 0
        if not readable.all() and (not skip_bad_images or not readable.any()):
            raise unreadable[0]
        if unreadable:
            logger.warning("%s: %d unreadable images left out, such as %s", file, len(unreadable), unreadable[0])
        faces, sizes = _select(faces, np.flatnonzero(there)[readable]), sizes[readable]
    else:
        logger.warning(
            "%s: no image is in %s; sizes of images are taken from their faces, for measuring only", file, root
        )
        sizes = _holding(faces)
    boxes = faces.boxes_xywh.copy()
    boxes[:, 2:] += boxes[:, :2]
    return build_table(
        ObjectRows(
            image_row=np.repeat(np.arange(len(faces.names)), np.diff(faces.offsets)),
            boxes_xyxy=boxes,
            labels=np.zeros(len(boxes), np.int32),
            flags=flags_where(faces.invalid, ObjectFlag.DIFFICULT) | flags_where(faces.occluded, ObjectFlag.OCCLUDED),
        ),
        source=file,
        root=root,
        file_names=faces.names,
        image_ids=None,
        sizes_wh=sizes,
        class_names=("face",),
        unreadable=unreadable,
    )


def _there(root: Path, names: Sequence[str]) -> NDArray[np.bool_]:
    """(I,) whether each image is in the folder; every folder of an event is listed once."""
    events = {name.rpartition("/")[0] for name in names}
    there = {
        event: {file.name for file in (root / event).iterdir()} if (root / event).is_dir() else set()
        for event in events
    }
    return np.array([name.rpartition("/")[2] in there[name.rpartition("/")[0]] for name in names], np.bool_)


def _holding(faces: WiderFaces) -> NDArray[np.int32]:
    """(I, 2) the smallest sizes that hold the faces of each image."""
    ends = np.ceil(np.maximum(faces.boxes_xywh[:, :2] + faces.boxes_xywh[:, 2:], 1)).astype(np.int32)
    sizes = np.ones((len(faces.names), 2), np.int32)
    np.maximum.at(sizes, np.repeat(np.arange(len(sizes)), np.diff(faces.offsets)), ends)
    return sizes


def _select(faces: WiderFaces, rows: NDArray[np.int64]) -> WiderFaces:
    kept, offsets = ragged_rows(faces.offsets, rows)
    names = [faces.names[row] for row in rows.tolist()]
    return WiderFaces(names, offsets, faces.boxes_xywh[kept], faces.invalid[kept], faces.occluded[kept])
