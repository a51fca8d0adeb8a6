"""OpenImages V4 to V7: CSV files of boxes and of verified image-level labels, a hierarchy of classes, images."""

import csv
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.data.building import ObjectRows, build_table
from sniper.data.class_tree import ancestors_of, ancestors_of_some
from sniper.data.image_labels import ImageLabels
from sniper.data.image_sizes import sizes_of_images
from sniper.data.options import IN_PYTHON, OptionNames
from sniper.data.readers.openimages_files import image_folders, images_in, openimages_files
from sniper.data.table import AnnotationTable
from sniper.errors import DataError

if TYPE_CHECKING:
    from sniper.data.readers.openimages_csv import BoxColumns, LabelColumns, Names

logger = logging.getLogger("sniper")

_MANY_PIXELS = 2.0  # a corner beyond this is no rounded share of a side
_HEADERS = ("labelname", "label", "mid", "class", "id")


def read_openimages(
    path: Path | str,
    split: str | None = None,
    *,
    image_root: Path | str | None = None,
    skip_bad_images: bool = False,
    options: OptionNames = IN_PYTHON,
) -> AnnotationTable:
    """Read a folder with the official CSV files, or one file of boxes that the others lie beside.

    Images are in a folder called as the split, in parts of one (``train_0``), in ``data`` or ``images``, at any depth;
    ``image_root`` replaces all of these. Images that are not there are left out and counted in one line, as are image
    files without annotations. The table's images are ordered by their ids, its classes as the descriptions are;
    annotation ids are the rows of the file of boxes, from 1. Its class tree has the hierarchy's subcategories, not its
    parts. ``skip_bad_images`` leaves out images whose header cannot be read.

    Raises:
        DataError: a file is missing, damaged or lacks columns, a box has a class that is not described, or no image
            is there.
    """
    from sniper.data.readers.openimages_csv import read_boxes, read_labels

    place = Path(path)
    files = openimages_files(place, split, options)
    mids, names = _descriptions(files.descriptions)
    boxes = read_boxes(files.boxes)
    verified = None if files.labels is None else read_labels(files.labels)
    classes = _classes_of(files.boxes, boxes, mids, files.descriptions)
    _refuse_pixels(files.boxes, boxes)
    folders = [Path(image_root)] if image_root is not None else image_folders(files, place)
    images = _images(files.boxes, folders, boxes, verified, options)
    sizes = sizes_of_images(images.root, images.names)
    bad = sizes.sizes_wh[:, 0] == 0
    if bad.any() and (not skip_bad_images or bad.all()):
        raise sizes.unreadable[0]
    if bad.any():
        logger.warning("%s: %d unreadable images left out, such as %s", files.boxes, bad.sum(), sizes.unreadable[0])
    good = images.without(bad)
    rows = good.of_boxes[boxes.images.codes]
    kept = np.flatnonzero(rows >= 0)
    rows = rows[kept]
    sizes_wh = sizes.sizes_wh[~bad]
    shares = boxes.shares_xyxy if len(kept) == len(boxes.flags) else boxes.shares_xyxy[kept]
    flags, labels = boxes.flags[kept], classes[boxes.classes.codes[kept]]
    del boxes
    shares *= np.tile(sizes_wh, 2)[rows]
    return build_table(
        ObjectRows(image_row=rows, boxes_xyxy=shares, labels=labels, flags=flags, ids=kept + 1),
        source=files.boxes,
        root=good.root,
        file_names=good.names,
        image_ids=None,
        sizes_wh=sizes_wh,
        class_names=names,
        image_labels=None if verified is None else _image_labels(files.labels, verified, good, mids),
        class_ancestors=None if files.hierarchy is None else _hierarchy(files.hierarchy, mids),
        unreadable=sizes.unreadable,
    )


def _descriptions(file: Path) -> tuple[list[str], list[str]]:
    """The MIDs and the names of the classes, in the order of the file, which may have a header line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = [line for line in csv.reader(opened) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {file}: {error}; expected a MID and a name a line, in UTF-8") from error
    header = bool(lines) and lines[0][0].strip().lower() in _HEADERS
    mids: dict[str, str] = {}
    owners: dict[str, str] = {}
    for number, line in enumerate(lines[header:], start=1 + header):
        if len(line) < 2 or not line[0].strip() or not line[1].strip():
            raise DataError(f"{file}, line {number}: expected a MID and a name, got {','.join(line)[:100]!r}; mend it")
        mid, name = line[0].strip(), line[1].strip()
        if mid in mids or owners.setdefault(name, mid) != mid:
            raise DataError(f"{file}, line {number}: {mid} or {name!r} is there twice; give each class one line")
        mids[mid] = name
    if not mids:
        raise DataError(f"{file} describes no class; expected a MID and a name a line")
    return list(mids), list(mids.values())


def _classes_of(file: Path, boxes: "BoxColumns", mids: list[str], descriptions: Path) -> NDArray[np.int32]:
    """(U,) the label of each MID of the boxes."""
    from sniper.data.readers.openimages_csv import places_among

    labels = places_among(boxes.classes.texts, mids)
    unknown = np.flatnonzero((labels < 0)[boxes.classes.codes])
    if len(unknown):
        mid = boxes.classes.texts[int(boxes.classes.codes[unknown[0]])]
        raise DataError(
            f"{file}, line {unknown[0] + 2}: class {mid} is not in {descriptions} ({len(unknown)} boxes of "
            f"{int((labels < 0).sum())} such classes); give the descriptions that belong to these boxes"
        )
    return labels.astype(np.int32)


def _refuse_pixels(file: Path, boxes: "BoxColumns") -> None:
    """Corners are shares of the sides; the few beyond are clipped later, but pixels are refused."""
    beyond = (boxes.shares_xyxy.max(axis=1, initial=-np.inf) > _MANY_PIXELS).nonzero()[0]
    if len(beyond) > len(boxes.flags) / 2:
        row = int(beyond[0])
        raise DataError(
            f"{file}, line {row + 2}: box {boxes.shares_xyxy[row].tolist()} looks like pixels, as {len(beyond)} others "
            "do; expected shares of the image's sides, from 0 to 1: divide x by the width and y by the height"
        )


class _Images(NamedTuple):
    """The annotated images that are there. I images."""

    root: Path
    names: list[str]  # (I,) files, relative to root
    of_boxes: NDArray[np.int64]  # (U,) the row of each image that the boxes name, -1: it is not there
    of_labels: NDArray[np.int64] | None  # the same of the image-level labels

    def without(self, left_out: NDArray[np.bool_]) -> "_Images":
        """Those that are not ``left_out`` (I,)."""
        if not left_out.any():
            return self
        row = np.append(np.where(left_out, -1, np.cumsum(~left_out) - 1), -1)
        names = [name for name, out in zip(self.names, left_out.tolist(), strict=True) if not out]
        return _Images(
            self.root, names, row[self.of_boxes], None if self.of_labels is None else row[self.of_labels]
        )  # fmt: skip


def _images(
    file: Path, folders: list[Path], boxes: "BoxColumns", verified: "LabelColumns | None", options: OptionNames
) -> _Images:
    """The annotated images in the first of ``folders`` that has any of them."""
    from sniper.data.readers.openimages_csv import places_among, texts_of

    named: list[Names] = [boxes.images] if verified is None else [boxes.images, verified.images]
    ids = texts_of([names.texts for names in named])
    for folder in folders:
        names = images_in(folder)
        # A stem that is there twice (the OID toolkit has an image in the folder of each of its classes) means one.
        file_of = dict(zip(map(_stem, reversed(names)), reversed(names), strict=True))
        there = [name for one in ids if (name := file_of.get(one)) is not None]
        if not there:
            continue
        found = [one for one in ids if one in file_of]
        if len(found) < len(ids) or len(found) < len(file_of):
            logger.warning(
                "%s: %d of %d annotated images are not in %s and are left out; %d images there are not annotated",
                file, len(ids) - len(found), len(ids), folder, len(file_of) - len(found),
            )  # fmt: skip
        rows = [places_among(one.texts, found) for one in named]
        return _Images(folder, there, rows[0], rows[1] if verified is not None else None)
    looked = ", ".join(map(str, folders)) or "no folder, as none is there"
    raise DataError(
        f"{file}: none of {len(ids)} images is found, such as {ids[0] if ids else 'none'}.jpg; looked in {looked}; "
        f"give the folder of the images with {options.images}"
    )


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _image_labels(file: Path | None, verified: "LabelColumns", images: _Images, mids: list[str]) -> ImageLabels:
    """Labels of the images that are there, by image; those of classes without boxes are left out."""
    from sniper.data.readers.openimages_csv import places_among

    assert images.of_labels is not None
    rows = images.of_labels[verified.images.codes]
    labels = places_among(verified.classes.texts, mids)[verified.classes.codes]
    others = int(((labels < 0) & (rows >= 0)).sum())
    if others:
        logger.info("%s: %d labels are of classes that are not described and are left out", file, others)
    kept = np.flatnonzero((rows >= 0) & (labels >= 0))
    order = kept[np.argsort(rows[kept], kind="stable")]
    offsets = np.zeros(len(images.names) + 1, np.int64)
    np.cumsum(np.bincount(rows[order], minlength=len(images.names)), out=offsets[1:])
    return ImageLabels(offsets, labels[order].astype(np.int32), verified.confidence[order])


def _hierarchy(file: Path, mids: list[str]) -> NDArray[np.int32]:
    """(A, 2) which of the classes is a kind of which; parts (a wheel of a car) are no kinds."""
    try:
        root = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {file}: {error}; expected the hierarchy of OpenImages as JSON") from error
    nodes = {mid: row for row, mid in enumerate(mids)}
    pairs: list[tuple[int, int]] = []

    def walk(node: Any, above: int | None) -> None:
        if not isinstance(node, dict) or not isinstance(node.get("LabelName"), str):
            raise DataError(f"{file}: expected LabelName in every class, got {str(node)[:100]}; download it again")
        row = nodes.setdefault(node["LabelName"], len(nodes))
        if above is not None:
            pairs.append((row, above))
        for kind in node.get("Subcategory", ()):
            walk(kind, row)

    walk(root, None)
    try:
        every = ancestors_of(np.array(pairs, np.int64).reshape(-1, 2), list(nodes))
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    new_label = np.where(np.arange(len(nodes)) < len(mids), np.arange(len(nodes)), -1).astype(np.int32)
    return ancestors_of_some(every, new_label)
