"""Any supported dataset from a path: its form is found by looking."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sniper.data.place import existing_dataset
from sniper.data.readers.coco import read_coco
from sniper.data.readers.voc import read_voc
from sniper.data.readers.yolo import IMAGE_SUFFIXES, read_yolo
from sniper.data.table import AnnotationTable
from sniper.errors import DataError

logger = logging.getLogger("sniper")

Format = Literal["coco", "yolo", "voc"]


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
    """Read a dataset in COCO, YOLO or Pascal VOC form; the form is found from the path unless ``format`` says it.

    ``path`` is a COCO JSON file, a folder with ``annotations/*.json`` (or the file itself, also inside split folders),
    a ``data.yaml``, a folder of a YOLO set, or a folder with ``Annotations``. ``split`` names a part (train, val,
    ...). ``image_root`` is the folder of the images, if not the usual one. ``classes`` keeps only these classes, in
    this order; a YOLO folder without a names file takes its names from it. With ``missing_classes="allow"``, classes
    that the dataset does not have are classes without objects, as a trained detector's may be in a test set.
    ``skip_bad_images`` leaves out, with a warning, images whose size must be read from a file that cannot be (YOLO; the
    other forms state sizes and no image is opened here). ``masks=False`` leaves COCO's masks out, for speed.

    Raises:
        DataError: nothing is there, the form is not known (the message lists what was looked for), the split is
            missing or ambiguous, or the annotations are wrong.
    """
    place = existing_dataset(path)
    if image_root is not None and not Path(image_root).is_dir():
        raise DataError(f"image folder {image_root} is not there; give the folder of the dataset's images")
    form = format or _form(place, split)
    if form == "coco" and place.is_file() and split is not None:
        raise DataError(f"{place} is one file and has no split {split!r}; leave the split out, or give the folder")
    if form == "coco":
        table = read_coco(place if place.is_file() else _json_of(place, split), image_root=image_root, masks=masks)
    elif form == "voc":
        table = read_voc(_voc_root(place), split, image_root=image_root)
    else:
        table = read_yolo(place, split, image_root=image_root, names=classes, skip_bad_images=skip_bad_images)
    if classes is not None and tuple(classes) != table.class_names:
        whole, table = table, table.with_classes(classes, missing=missing_classes)
        _tell_of_others(place, whole, table, missing_classes)
    return table


def _tell_of_others(place: Path, whole: AnnotationTable, chosen: AnnotationTable, missing: str) -> None:
    """One line where objects are left out for classes that nobody chose by hand."""
    if missing == "error":
        return
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


def _form(place: Path, split: str | None) -> Format:
    if place.is_file():
        forms: dict[str, Format] = {".json": "coco", ".yaml": "yolo", ".yml": "yolo"}
        if place.suffix.lower() in forms:
            return forms[place.suffix.lower()]
        raise DataError(f"{place} is neither a COCO .json nor a YOLO .yaml; give one of these, or the dataset's folder")
    if (_voc_root(place) / "Annotations").is_dir() and any((_voc_root(place) / "Annotations").glob("*.xml")):
        return "voc"
    if any((place / name).is_file() for name in ("data.yaml", "data.yml", "dataset.yaml")):
        return "yolo"
    if _json_files(place, split):
        return "coco"
    folders = [place, place / "images", *([place / split, place / "images" / split] if split else [])]
    folders += [folder / "images" for folder in folders[2:3]]
    if any((place / name).is_dir() for name in ("labels", f"{split}/labels")) or any(map(_has_label_beside, folders)):
        return "yolo"
    raise DataError(
        f"{place} is no dataset of a known form; looked for annotations/*.json, *.json and <split>/*.json (COCO), "
        "data.yaml, images/ with labels/, images with .txt beside them (YOLO), Annotations/*.xml (Pascal VOC); "
        "give the file itself, or format="
    )


def _voc_root(place: Path) -> Path:
    """The folder of the set itself, where an unpacked VOCdevkit is given."""
    inner = sorted(place.glob("VOC20*")) if not (place / "Annotations").is_dir() else []
    return inner[0] if len(inner) == 1 else place


def _has_label_beside(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    files = {file.name for file in folder.iterdir()}
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES and f"{Path(name).stem}.txt" in files for name in files)


def _json_files(folder: Path, split: str | None) -> list[Path]:
    """JSON files that may hold annotations, from the first place that has any."""
    inside = [folder / split] if split else []
    for place in (folder / "annotations", *inside, folder):
        files = sorted(file for file in place.glob("*.json") if _looks_like_coco(file))
        if files:
            return files
    return []


def _looks_like_coco(file: Path) -> bool:
    """Whether the file begins as an object: result files and id lists are arrays."""
    with file.open("rb") as opened:
        return opened.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def _json_of(folder: Path, split: str | None) -> Path:
    files = _json_files(folder, split)
    if not files:
        raise DataError(f"{folder} has no COCO file: looked for annotations/*.json, *.json and <split>/*.json")
    chosen = files
    if split is not None and any(file.parent != folder / split for file in files):
        part = re.compile(rf"(^|[_\-.]){re.escape(split)}(\d{{4}})?($|[_\-.])")
        chosen = [file for file in files if part.search(file.stem)]
    if len(chosen) > 1:
        chosen = [file for file in chosen if file.stem.startswith("instances")] or chosen
    if len(chosen) == 1:
        return chosen[0]
    there = ", ".join(file.name for file in files[:12])
    if not chosen:
        raise DataError(
            f"{folder} has no annotations of split {split!r}; it has {there}; name one of these splits or files"
        )
    wanted = "which split to read" if split is None else f"which file of split {split!r} is meant"
    raise DataError(f"{folder} does not say {wanted}; it has {there}; give a split or the file itself")
