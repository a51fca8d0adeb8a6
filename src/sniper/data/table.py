"""The annotation table: all images and boxes of a dataset as flat columns, grouped by image through offsets."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from sniper.data.class_tree import ancestors_of_some, check_class_tree
from sniper.data.columns import Masks, PackedStrings, ragged_rows
from sniper.data.flags import IGNORED_FLAGS, KNOWN_FLAGS, REGION_FLAGS, any_flag
from sniper.data.image_labels import ImageLabels
from sniper.data.repairs import Repairs
from sniper.data.sharing import SharedColumns, share_columns
from sniper.errors import DataError

_MASK_COLUMNS = ("ring_offsets", "point_offsets", "points_xy", "run_rows")
_LABEL_COLUMNS = ("offsets", "labels", "confidence")
_DTYPES: dict[str, tuple[type, tuple[int, ...]]] = {
    "image_ids": (np.int64, ()),
    "sizes_wh": (np.int32, (2,)),
    "offsets": (np.int64, ()),
    "boxes_xyxy": (np.float32, (4,)),
    "labels": (np.int32, ()),
    "flags": (np.uint8, ()),
    "areas": (np.float32, ()),
    "annotation_ids": (np.int64, ()),
    "class_ids": (np.int64, ()),
}
_COLUMNS = tuple(_DTYPES)
_OBJECT_COLUMNS = ("boxes_xyxy", "labels", "flags", "areas", "annotation_ids")


@dataclass(frozen=True, slots=True, eq=False)
class AnnotationTable:
    """All images and boxes of a dataset. I images, N boxes, C classes.

    ``boxes_xyxy[offsets[i]:offsets[i + 1]]`` are the boxes of image ``i``. Boxes satisfy
    ``0 <= x1 < x2 <= width`` and ``0 <= y1 < y2 <= height``. Images without boxes are legal.
    Readers uphold this (see ``building.build_table``); ``check`` verifies it for a table made by hand.
    """

    root: Path  # file names are relative to this folder
    file_names: Sequence[str]  # I; any sequence is packed
    image_ids: NDArray[np.int64]  # (I,) ids of the dataset, or 1..I where it has none
    sizes_wh: NDArray[np.int32]  # (I, 2) width and height, original px
    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    labels: NDArray[np.int32]  # (N,) index into class_names
    flags: NDArray[np.uint8]  # (N,) bits of ObjectFlag
    areas: NDArray[np.float32]  # (N,) area by the annotation (of the mask where there is one), square px
    annotation_ids: NDArray[np.int64]  # (N,)
    class_names: tuple[str, ...]  # C
    class_ids: NDArray[np.int64]  # (C,) ids of the dataset, for results files
    masks: Masks | None = None  # N; None where the dataset has no masks
    image_labels: ImageLabels | None = None  # I; None where no labels of whole images were verified
    class_ancestors: NDArray[np.int32] | None = None  # (A, 2) a class and one that it is a kind of; None: no tree
    repairs: Repairs | None = field(default=None, repr=False)  # of the reading; None: by hand, or of some images only
    shared: SharedColumns | None = field(default=None, repr=False)  # the file behind the columns, see share

    def __post_init__(self) -> None:
        if not isinstance(self.file_names, PackedStrings):
            object.__setattr__(self, "file_names", PackedStrings.pack(self.file_names))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.shared is not None:
            return _open_shared, (self.shared.path,)
        own = tuple(getattr(self, name) for name in self.__dataclass_fields__ if name != "shared")
        return type(self), own

    @property
    def num_objects(self) -> int:
        """N, ignored ones included."""
        return len(self.labels)

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(N,) crowd, group-of and difficult objects: never learned, neither object nor background."""
        return any_flag(self.flags, IGNORED_FLAGS)

    @property
    def regions(self) -> NDArray[np.bool_]:
        """(N,) of the ignored ones, boxes around many objects (crowd, group-of).

        What lies in a region is told by the share of its own area inside; every other object is told by IoU.
        """
        return any_flag(self.flags, REGION_FLAGS)

    def objects(self, image_row: int) -> slice:
        """Rows of the boxes of an image."""
        return slice(int(self.offsets[image_row]), int(self.offsets[image_row + 1]))

    def image_rows_of_objects(self) -> NDArray[np.int64]:
        """(N,) the image row of every box."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def file_name(self, image_row: int) -> str:
        """Name of an image file, relative to ``root``."""
        return self.file_names[image_row]

    def image_path(self, image_row: int) -> Path:
        """Path of an image file; nothing says that it exists."""
        return self.root / self.file_names[image_row]

    def select(self, image_rows: Sequence[int] | NDArray[np.integer]) -> Self:
        """The given images, in the given order, with their boxes and ids. A plain table, even if this is shared."""
        rows = np.asarray(image_rows, np.int64).reshape(-1)
        objects, offsets = ragged_rows(self.offsets, rows)
        names = self.file_names.take(rows) if isinstance(self.file_names, PackedStrings) else ()
        images = replace(
            self,
            file_names=names,
            image_ids=self.image_ids[rows],
            sizes_wh=self.sizes_wh[rows],
            image_labels=None if self.image_labels is None else self.image_labels.take(rows),
            repairs=None,
            shared=None,
        )
        return images._with_objects(objects, offsets)

    def with_classes(self, names: Sequence[str], *, missing: Literal["error", "allow"] = "error") -> Self:
        """Only objects of the named classes, labelled by their place in ``names``.

        A class that the dataset does not have is an error, or with ``missing="allow"`` a class without objects, whose
        id is one that the dataset does not use: a detector knows classes that a test set may lack.

        Raises:
            DataError: a name is given twice, or the dataset does not have it.
        """
        if len(set(names)) != len(names):
            raise DataError(f"classes {list(names)} names a class twice; give every class once")
        known = {name: label for label, name in reversed(list(enumerate(self.class_names)))}
        absent = [name for name in names if name not in known]
        if absent and missing == "error":
            raise DataError(
                f"class {absent[0]!r} is not in the dataset at {self.root}; {_nearest(absent[0], self.class_names)}"
            )
        new_label = np.full(len(self.class_names), -1, np.int32)
        old_label = np.array([known.get(name, -1) for name in names], np.int64)
        new_label[old_label[old_label >= 0]] = np.flatnonzero(old_label >= 0)
        kept = np.flatnonzero(new_label[self.labels] >= 0)
        counts = np.bincount(self.image_rows_of_objects()[kept], minlength=len(self))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        unused = self.class_ids.max(initial=0) + 1 + np.arange(len(names))
        ids = np.where(old_label >= 0, np.append(self.class_ids, 0)[old_label], unused)
        fewer = self._with_objects(kept, offsets)
        verified, tree = self.image_labels, self.class_ancestors
        return replace(
            fewer,
            labels=new_label[fewer.labels],
            class_names=tuple(names),
            class_ids=ids,
            image_labels=None if verified is None else verified.relabelled(new_label),
            class_ancestors=None if tree is None else ancestors_of_some(tree, new_label),
            repairs=None if self.repairs is None else self.repairs.relabelled(new_label),
        )

    def of_one_class(self, name: str = "object") -> Self:
        """The same objects, all of one class; labels of whole images and the class tree say nothing then."""
        return replace(
            self,
            labels=np.zeros_like(self.labels),
            class_names=(name,),
            class_ids=np.ones(1, np.int64),
            image_labels=None,
            class_ancestors=None,
            repairs=None,
            shared=None,
        )

    def without_objects(self, rows: NDArray[np.int64]) -> Self:
        """All images, without the objects of the given rows."""
        kept = np.delete(np.arange(self.num_objects), rows)
        counts = np.bincount(self.image_rows_of_objects()[kept], minlength=len(self))
        return self._with_objects(kept, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def _with_objects(self, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> Self:
        return replace(
            self,
            offsets=offsets,
            **{name: getattr(self, name)[rows] for name in _OBJECT_COLUMNS},
            masks=None if self.masks is None else self.masks.take(rows),
            shared=None,
        )

    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(column.nbytes for _, column in self._arrays())

    def fingerprint(self, *settings: object) -> str:
        """SHA-256 over every column and the given settings, as hexadecimal: the key for anything cached.

        ``root`` is left out, so that a dataset may move; whoever caches something made from pixels adds it.
        Settings are pydantic models and plain JSON values.
        """
        digest = hashlib.sha256()
        for name, column in self._arrays():
            digest.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
            digest.update(np.ascontiguousarray(column).data if column.size else b"")
        plain = [setting.model_dump(mode="json") if isinstance(setting, BaseModel) else setting for setting in settings]
        digest.update(json.dumps([self.class_names, plain], sort_keys=True).encode())
        return digest.hexdigest()

    def share(self) -> Self:
        """The same table over read-only views of one file in memory, for worker processes.

        It pickles as the file's name, with any start method, and every process maps the same pages. The file goes
        when the returned table (and its pickles' owner) goes; workers that have opened it keep their view.

        Raises:
            StorageError: neither shared memory nor the temporary folder has room.
        """
        if self.shared is not None:
            return self
        details = {"root": str(self.root), "class_names": list(self.class_names)}
        return _table_over(type(self), share_columns(dict(self._arrays()), details))

    def check(self) -> Self:
        """This table, if it keeps its promises; for tables made by hand and for tests.

        Raises:
            DataError: a column has the wrong type or length, or a box, label or offset is out of range.
        """
        for name, (dtype, tail) in _DTYPES.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.ndim != 1 + len(tail) or column.shape[1:] != tail:
                raise DataError(f"column {name} is {column.dtype} {column.shape}, not {np.dtype(dtype)} (rows, {tail})")
        images, objects = len(self), self.num_objects
        expected = {"sizes_wh": images, "offsets": images + 1, "class_ids": len(self.class_names)}
        expected |= dict.fromkeys(_OBJECT_COLUMNS, objects)
        for name, length in expected.items():
            if len(getattr(self, name)) != length:
                raise DataError(f"column {name} has {len(getattr(self, name))} rows, not {length}")
        if len(self.file_names) != images or (self.masks is not None and len(self.masks) != objects):
            raise DataError("file names and masks must have one row an image and one row a box")
        if self.offsets[0] != 0 or self.offsets[-1] != objects or (np.diff(self.offsets) < 0).any():
            raise DataError(f"offsets must rise from 0 to the number of boxes, {objects}")
        size = np.repeat(self.sizes_wh, np.diff(self.offsets), axis=0)
        low, high = self.boxes_xyxy[:, :2], self.boxes_xyxy[:, 2:]
        good = ((low >= 0) & (low < high) & (high <= size)).all(axis=1)
        good &= (self.labels >= 0) & (self.labels < len(self.class_names))
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(
                f"annotation {self.annotation_ids[row]} has box {self.boxes_xyxy[row].tolist()} and label "
                f"{self.labels[row]} in an image of {size[row].tolist()} px; boxes must lie inside"
            )
        if any_flag(self.flags, ~KNOWN_FLAGS & 0xFF).any():
            raise DataError(f"flags have bits of no ObjectFlag; known are those of {KNOWN_FLAGS:#09b}")
        if self.image_labels is not None:
            self.image_labels.check(images, len(self.class_names))
        if self.class_ancestors is not None:
            check_class_tree(self.class_ancestors, self.class_names)
        return self

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        assert isinstance(self.file_names, PackedStrings)
        yield "names.blob", self.file_names.blob
        yield "names.offsets", self.file_names.offsets
        for name in _COLUMNS:
            yield name, getattr(self, name)
        if self.masks is not None:
            for name in _MASK_COLUMNS:
                yield f"masks.{name}", getattr(self.masks, name)
            yield "masks.runs.blob", self.masks.runs.blob
            yield "masks.runs.offsets", self.masks.runs.offsets
        if self.image_labels is not None:
            for name in _LABEL_COLUMNS:
                yield f"image_labels.{name}", getattr(self.image_labels, name)
        if self.class_ancestors is not None:
            yield "class_ancestors", self.class_ancestors


_Table = TypeVar("_Table", bound=AnnotationTable)


def _nearest(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names[:20])}"


def _open_shared(path: Path) -> AnnotationTable:
    return _table_over(AnnotationTable, SharedColumns(path))


def _table_over(kind: type[_Table], shared: SharedColumns) -> _Table:
    columns, details = shared.columns, shared.details
    masks = verified = None
    if "masks.run_rows" in columns:
        runs = PackedStrings(columns["masks.runs.blob"], columns["masks.runs.offsets"])
        masks = Masks(**{name: columns[f"masks.{name}"] for name in _MASK_COLUMNS}, runs=runs)
    if "image_labels.labels" in columns:
        verified = ImageLabels(**{name: columns[f"image_labels.{name}"] for name in _LABEL_COLUMNS})
    return kind(
        root=Path(details["root"]),
        file_names=PackedStrings(columns["names.blob"], columns["names.offsets"]),
        class_names=tuple(details["class_names"]),
        masks=masks,
        image_labels=verified,
        class_ancestors=columns.get("class_ancestors"),
        shared=shared,
        **{name: columns[name] for name in _COLUMNS},  # type: ignore[arg-type]
    )
