"""COCO JSON: one file with images, annotations and categories."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from sniper.data.building import ObjectRows, build_table, check_images
from sniper.data.columns import MaskBuilder
from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.readers.coco_files import guess_image_root
from sniper.data.table import AnnotationTable
from sniper.errors import DataError

logger = logging.getLogger("sniper")


_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[int, msgspec.Meta(le=2**31 - 1)]


class _Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: str
    width: _Side
    height: _Side


class _Annotation(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Id
    bbox: tuple[float | None, float | None, float | None, float | None]
    id: _Id | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw()  # a view of the file; read by and by, see _mask_adder


class _Category(msgspec.Struct, gc=False):
    id: _Id
    name: str


class _Dataset(msgspec.Struct, gc=False):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] | None = None


class _Pieces(msgspec.Struct, gc=False):
    """The file taken apart without a look inside, to name the piece that is wrong."""

    images: list[msgspec.Raw] = []
    categories: list[msgspec.Raw] = []
    annotations: list[msgspec.Raw] | None = []


_decode_rings: Callable[[msgspec.Raw], list[list[float]]] = msgspec.json.Decoder(list[list[float]]).decode


def read_coco(path: Path | str, *, image_root: Path | str | None = None, masks: bool = True) -> AnnotationTable:
    """Read a COCO annotation file; classes are ordered by their ids, images as in the file.

    ``image_root`` is the folder of the file names; without it, the usual places around the file are tried, and
    images need not be there at all. Files without ``annotations`` (the public COCO test sets) are images only.
    Without ``masks`` polygons and run lengths are not read, which takes most of the time.

    Raises:
        DataError: the file cannot be read, is cut off, lacks keys, has an image or class id twice, names an unknown
            image or category, or has no images.
    """
    file = Path(path)
    data = _decode(file)
    annotations = data.annotations or []
    if data.annotations is None:
        logger.warning("%s has no annotations: images without objects", file)
    categories = sorted(data.categories, key=lambda category: category.id)
    class_ids = np.array([category.id for category in categories], np.int64)
    twice = np.flatnonzero(np.diff(class_ids) == 0)
    if len(twice):
        raise DataError(f"{file}: category id {class_ids[twice[0]]} is given twice; give every category its own")
    _refuse_names_twice(file, categories)
    image_ids = np.array([image.id for image in data.images], np.int64)
    file_names = [image.file_name for image in data.images]
    sizes = np.array([(image.width, image.height) for image in data.images], np.int64).reshape(-1, 2)
    check_images(file, file_names, image_ids, sizes)
    ids = [annotation.id for annotation in annotations]
    count = len(annotations)
    own_ids = None if None in ids else np.array(ids, np.int64)
    boxes = np.array([annotation.bbox for annotation in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    objects = ObjectRows(
        image_row=_places(file, "image", image_ids, [a.image_id for a in annotations], ids),
        boxes_xyxy=boxes,
        labels=_places(file, "category", class_ids, [a.category_id for a in annotations], ids).astype(np.int32),
        flags=flags_where(np.fromiter((bool(a.iscrowd) for a in annotations), np.bool_, count), ObjectFlag.CROWD),
        areas=np.array([a.area for a in annotations], np.float64),
        ids=own_ids,
    )
    some = file_names[0], file_names[len(file_names) // 2], file_names[-1]
    has_masks = masks and any(len(bytes(a.segmentation)) > 2 and bytes(a.segmentation) != b"null" for a in annotations)
    return build_table(
        objects,
        source=file,
        root=Path(image_root) if image_root is not None else guess_image_root(file, *some),
        file_names=file_names,
        image_ids=image_ids,
        sizes_wh=sizes,
        class_names=[category.name for category in categories],
        class_ids=class_ids,
        add_mask=_mask_adder(annotations) if has_masks else None,
    )


def _refuse_names_twice(file: Path, categories: list[_Category]) -> None:
    first: dict[str, int] = {}
    for category in categories:
        if first.setdefault(category.name, category.id) != category.id:
            raise DataError(
                f"{file}: categories {first[category.name]} and {category.id} are both called {category.name!r}; "
                "give each its own name, or make them one"
            )


def _decode(file: Path) -> _Dataset:
    try:
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # a mark that Windows programs write
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; give the path of a COCO JSON file") from error
    try:
        return _decoded(file, content)
    except UnicodeDecodeError as error:  # where it is refused for something else too
        raise DataError(f"{file} is not text in UTF-8 ({error}); write the file again as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{file} is nested too deeply to be COCO; copy or write the file again") from error


def _decoded(file: Path, content: bytes) -> _Dataset:
    decoder = msgspec.json.Decoder(_Dataset)
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        _explain(file, content, error)
    except msgspec.DecodeError as error:
        finite = _without_nan(content)
        if finite is not None:
            try:
                return decoder.decode(finite)
            except msgspec.ValidationError as inner:
                _explain(file, finite, inner)
            except msgspec.DecodeError:
                pass
        _refuse_json(file, content, error)


def _refuse_json(file: Path, content: bytes, error: msgspec.DecodeError) -> NoReturn:
    content.decode()  # what is no text is refused as that, whatever msgspec calls it
    place = re.search(r"byte (\d+)", str(error))
    byte = int(place.group(1)) if place else len(content)
    line = content.count(b"\n", 0, byte) + 1
    what = "ends in the middle (cut off?)" if place is None else f"is not JSON ({error})"
    raise DataError(f"{file} {what} at line {line}, byte {byte}; copy or write the file again") from error


def _without_nan(content: bytes) -> bytes | None:
    """The file with NaN and infinities, which Python writes and JSON does not know, as null; None if it has none."""
    if not re.search(rb"NaN|Infinity", content):
        return None
    tokens = re.compile(rb'("(?:[^"\\]|\\.)*")|-?(?:NaN|Infinity)')
    return tokens.sub(lambda match: match.group(1) or b"null", content)


def _explain(file: Path, content: bytes, error: msgspec.ValidationError) -> NoReturn:
    """Say which entry is wrong by its id, which msgspec tells only by its place."""
    said = str(error)
    place = re.search(r"\$\.(images|annotations|categories)\[(\.\.\.|\d+)\]", said)
    if place is None or content.lstrip()[:1] != b"{":
        raise DataError(f"{file} is not a COCO annotation file: {said}; it needs images, annotations and categories")
    kind = place.group(1)
    models: dict[str, type[msgspec.Struct]] = {"images": _Image, "annotations": _Annotation, "categories": _Category}
    try:
        entries: list[msgspec.Raw] = getattr(msgspec.json.decode(content, type=_Pieces), kind)
    except msgspec.DecodeError as broken:  # behind the wrong entry, which is told first
        _refuse_json(file, content, broken)
    for row, entry in enumerate(entries):
        try:
            msgspec.json.decode(entry, type=models[kind])
        except msgspec.ValidationError as inner:
            said, found = str(inner), json.loads(bytes(entry))
            name: Any = found.get("id", "without an id") if isinstance(found, dict) else "that is no object"
            noun = {"images": "image", "annotations": "annotation", "categories": "category"}[kind]
            raise DataError(f"{file}: {noun} {name} ({kind}[{row}]): {said}; mend or remove it") from error
    raise DataError(f"{file}: {said}; mend or remove that entry") from error


def _places(
    file: Path, noun: str, known: NDArray[np.int64], wanted: list[int], annotation_ids: list[int | None]
) -> NDArray[np.int64]:
    """Rows of the wanted ids among the known ones."""
    ids = np.array(wanted, np.int64)
    if not len(ids):
        return np.zeros(0, np.int64)
    order = np.argsort(known, kind="stable")
    place = (
        order[np.minimum(np.searchsorted(known, ids, sorter=order), max(len(known) - 1, 0))] if len(known) else order
    )
    unknown = np.flatnonzero(known[place] != ids) if len(known) else np.zeros(1, np.int64)
    if len(unknown):
        row = int(unknown[0])
        raise DataError(
            f"{file}: annotation {annotation_ids[row]} names {noun} {ids[row]}, which the file does not have; "
            f"add the {noun} or remove the annotation ({len(unknown)} such)"
        )
    return place


def _mask_adder(annotations: list[_Annotation]) -> Callable[[int, MaskBuilder], None]:
    def add(row: int, builder: MaskBuilder) -> None:
        raw = annotations[row].segmentation
        annotations[row] = None  # type: ignore[call-overload]  # frees as much as the mask takes
        text = bytes(raw)
        if text[:1] == b"{":
            builder.add(run_length=text)
            return
        try:
            builder.add(_decode_rings(raw) if len(text) > 2 and text != b"null" else ())
        except msgspec.ValidationError:
            builder.add()
            builder.dropped += 1

    return add
