"""The one place that opens data: any supported dataset from a path; its form and its splits are found by looking."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from sniper.data.flags import ignoring
from sniper.data.options import IN_PYTHON, Format, IgnorableFlag, OptionNames, Role, split_of_role
from sniper.data.place import existing_dataset
from sniper.data.readers.coco import read_coco
from sniper.data.readers.coco_files import coco_file, coco_splits, image_roots, is_coco
from sniper.data.readers.imagenet import read_imagenet
from sniper.data.readers.imagenet_files import imagenet_splits, is_imagenet
from sniper.data.readers.openimages import read_openimages
from sniper.data.readers.openimages_files import is_openimages, openimages_splits
from sniper.data.readers.voc import read_voc
from sniper.data.readers.voc_folders import image_folders, is_voc, voc_files, voc_splits
from sniper.data.readers.widerface import read_wider
from sniper.data.readers.widerface_files import image_folders as wider_image_folders
from sniper.data.readers.widerface_files import is_wider, is_wider_file, wider_splits
from sniper.data.readers.yolo import read_yolo
from sniper.data.readers.yolo_images import DESCRIPTIONS, IMAGE_SUFFIXES, yolo_splits
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.files import is_file

logger = logging.getLogger("sniper")

_SPLITS = {
    "coco": coco_splits,
    "yolo": yolo_splits,
    "voc": voc_splits,
    "openimages": openimages_splits,
    "wider": wider_splits,
    "imagenet": imagenet_splits,
}


@dataclass(frozen=True, slots=True)
class DataSource:
    """A dataset, and how to read it: all that a user says of one."""

    path: Path | str  # a COCO JSON file, a data.yaml, a CSV file of boxes, or the folder of a dataset
    split: str | None = None  # none: by what it is opened for
    format: Format | None = None  # none: found from the path
    images: Path | str | None = None  # the folder of the images; none: the usual ones are looked in
    classes: tuple[str, ...] | None = None  # only these, in this order; the names of a YOLO folder without a names file
    options: OptionNames = IN_PYTHON  # how the user says these
    ignore_flags: tuple[IgnorableFlag, ...] = ()  # objects with one of these are neither learned nor background

    def open(
        self,
        role: Role | None = None,
        *,
        known_as: Sequence[str] | None = None,
        needs_images: bool = False,
        skip_bad_images: bool = False,
        masks: bool = True,
    ) -> AnnotationTable:
        """Read the dataset.

        Where no split is said, ``role`` says which one is meant: train for training; val, else test, for evaluation.
        A dataset without splits is read whole. Without a role, ``data.yaml`` means its train split and other folders
        are read whole.

        ``known_as`` are the classes of a trained detector: those that the dataset lacks have no objects, and objects of
        others are left out, with a warning. ``needs_images``: some image must be there. ``skip_bad_images`` leaves out,
        with a warning, images whose size must be read from a file that cannot be (YOLO, OpenImages; the other forms
        state sizes and no image is opened here). ``masks=False`` leaves COCO's masks out, for speed.

        Raises:
            DataError: nothing is there, the form is not known (the message lists what was looked for), the split is
                missing or ambiguous, no image is found, or the annotations are wrong.
        """
        place = existing_dataset(self.path)
        if self.images is not None and not Path(self.images).is_dir():
            raise DataError(f"image folder {self.images} is not there; give the folder of the dataset's images")
        form = self.format or _form(place, self.split, self.options)
        place = _voc_root(place) if form == "voc" else place
        split = self._split(place, form, role)
        if form == "coco":
            file = place if place.is_file() else coco_file(place, split, self.options)
            table = read_coco(file, image_root=self.images, masks=masks)
        elif form == "voc":
            table = read_voc(place, split, image_root=self.images, options=self.options)
        elif form == "imagenet":
            table = read_imagenet(place, split, image_root=self.images, options=self.options)
        elif form in ("openimages", "wider"):
            read = read_openimages if form == "openimages" else read_wider
            table = read(place, split, image_root=self.images, skip_bad_images=skip_bad_images, options=self.options)
        else:
            table = read_yolo(
                place,
                split,
                image_root=self.images,
                names=self.classes,
                known_as=known_as,
                skip_bad_images=skip_bad_images,
                options=self.options,
            )
        logger.info("%s (%s%s): %d images, %d objects", place, form, f", {split}" if split else "", len(table),
                    table.num_objects)  # fmt: skip
        if self.ignore_flags:
            table = replace(table, flags=ignoring(table.flags, self.ignore_flags))
        if needs_images:
            self._require_images(place, form, split, table)
        if self.classes is not None and self.classes != table.class_names:
            table = table.with_classes(self.classes)
        if known_as is not None and tuple(known_as) != table.class_names:
            whole, table = table, table.with_classes(known_as, missing="allow")
            _tell_of_others(place, whole, table)
        return table

    def _split(self, place: Path, form: Format, role: Role | None) -> str | None:
        if form in ("coco", "openimages", "wider") and place.is_file():
            if self.split is not None:
                raise DataError(
                    f"{place} is one file and has no split {self.split!r}; leave {self.options.split} out, "
                    "or give the folder"
                )
            return None
        if self.split is not None or role is None:
            return self.split
        splits = _SPLITS[form](place)
        return split_of_role(place, splits, role, self.options)

    def _require_images(self, place: Path, form: Format, split: str | None, table: AnnotationTable) -> None:
        """An error with the folders that were searched, where not one image is found."""
        probes = np.unique(np.linspace(0, len(table) - 1, 64).round().astype(int))
        rows = [*probes.tolist(), *range(len(table))]
        if any(is_file(table.image_path(row)) for row in rows):
            return
        searched = [table.root]
        if self.images is None and form == "coco":
            searched = image_roots(place if place.is_file() else coco_file(place, split, self.options))
        elif self.images is None and form == "voc":
            files = voc_files(place, split, self.options)
            searched = image_folders(files.folder, files.pages)
        elif self.images is None and form == "wider" and place.is_file():
            searched = wider_image_folders(place)
        there = ", ".join(str(folder) for folder in searched if folder.is_dir())
        raise DataError(
            f"{place}: none of {len(table)} images is found, such as {table.file_name(0)}; looked in "
            f"{there or table.root}; give the folder of the images with {self.options.images}"
        )


def load_dataset(
    path: Path | str,
    split: str | None = None,
    *,
    format: Format | None = None,
    image_root: Path | str | None = None,
    classes: Sequence[str] | None = None,
    missing_classes: Literal["error", "allow"] = "error",
    skip_bad_images: bool = False,
    masks: bool = True,
) -> AnnotationTable:
    """Read a dataset in COCO, YOLO, Pascal VOC, OpenImages, WIDER FACE or ImageNet form.

    The form is found from the path or said by ``format``.

    ``path`` is a COCO JSON file, a folder with ``annotations/*.json`` (or the file itself, also inside split folders),
    a ``data.yaml``, a folder of a YOLO set, a folder with annotations as XML (Pascal VOC), or a CSV file of boxes or
    the folder with those of OpenImages. ``split`` names a part (train, val, ...); none: that of ``data.yaml`` for
    training, or all. ``image_root`` is the folder of the images, if not the usual one. ``classes`` keeps only these
    classes, in this order; a YOLO folder without a names file takes its names from it. With
    ``missing_classes="allow"``, classes that the dataset does not have are classes without objects, as a trained
    detector's may be in a test set. ``skip_bad_images`` and ``masks`` as for ``DataSource.open``.

    Raises:
        DataError: as ``DataSource.open``.
    """
    chosen = None if classes is None else tuple(classes)
    strict = missing_classes == "error"
    source = DataSource(path, split, format, image_root, chosen if strict else None)
    return source.open(known_as=None if strict else chosen, skip_bad_images=skip_bad_images, masks=masks)


def _tell_of_others(place: Path, whole: AnnotationTable, chosen: AnnotationTable) -> None:
    """One line where objects are left out for classes that nobody chose by hand."""
    others = [name for name in whole.class_names if name not in chosen.class_names]
    left_out = whole.num_objects - chosen.num_objects
    if left_out:
        logger.warning(
            "%s: %d of %d objects are of classes that the detector was not trained on (%s) and are left out",
            place,
            left_out,
            whole.num_objects,
            ", ".join(others[:20]),
        )


def _form(place: Path, split: str | None, options: OptionNames) -> Format:
    if place.is_file():
        forms: dict[str, Format] = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".csv": "openimages"}
        if is_wider_file(place):
            return "wider"
        if place.suffix.lower() in forms:
            return forms[place.suffix.lower()]
        raise DataError(
            f"{place} is no COCO .json, YOLO .yaml, OpenImages .csv or wider_face_<split>_bbx_gt.txt; give one of "
            "these, or the dataset's folder"
        )
    if next((_voc_root(place) / "Annotations").glob("*.xml"), None) is not None:
        return "voc"
    if any((place / name).is_file() for name in DESCRIPTIONS):
        return "yolo"
    if is_openimages(place):  # whose hierarchy is a JSON file
        return "openimages"
    if is_wider(place):
        return "wider"
    if is_imagenet(place):
        return "imagenet"
    if is_coco(place, split):
        return "coco"
    if _is_yolo_folder(place, split):
        return "yolo"
    if is_voc(_voc_root(place)):
        return "voc"
    raise DataError(
        f"{place} is no dataset of a known form; looked for annotations/*.json, *.json and <split>/*.json (COCO), "
        "data.yaml, images/ with labels/, images with .txt beside them (YOLO), *.xml in Annotations/, annots/ or the "
        "like or beside the images (Pascal VOC), *bbox*.csv or detections.csv (OpenImages), "
        f"wider_face_<split>_bbx_gt.txt or .mat (WIDER FACE), n01440764/ and the like or Annotations/DET (ImageNet); "
        f"give the file itself, or say {options.format}"
    )


def _is_yolo_folder(place: Path, split: str | None) -> bool:
    folders = [place, place / "images"]
    for name in [split] if split else yolo_splits(place):
        folders += [place / name, place / "images" / name, place / name / "images"]
    labels = [folder / "labels" for folder in folders]
    return any(next(folder.rglob("*.txt"), None) for folder in labels) or any(map(_has_label_beside, folders))


def _voc_root(place: Path) -> Path:
    """The folder of the set itself, where an unpacked VOCdevkit is given."""
    inner = sorted(place.glob("VOC20*")) if not (place / "Annotations").is_dir() else []
    return inner[0] if len(inner) == 1 else place


def _has_label_beside(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    files = {file.name for file in folder.iterdir()}
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES and f"{Path(name).stem}.txt" in files for name in files)
