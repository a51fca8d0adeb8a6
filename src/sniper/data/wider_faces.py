"""The official annotation files of WIDER FACE: faces as text or MATLAB file, and which of them count where.

``wider_face_<split>_bbx_gt.txt`` has for each image its name, the number of faces and a line a face: x, y, width,
height, blur, expression, illumination, invalid, occlusion, pose. An image without a face has one line of zeros.
``wider_face_<split>.mat`` says the same. ``wider_{easy,medium,hard}_val.mat`` list the faces of each image that count.
"""

import re
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.data.mat_files import MatValue, read_mat
from sniper.errors import DataError

SUBSETS = ("easy", "medium", "hard")
_COLUMNS = 10  # of a face in a text file
_INVALID, _OCCLUSION = 7, 8
_SUFFIXES = (".jpg", ".jpeg", ".png")
_NUMBERS = re.compile(r"(\s*[-+.\deE]+)+\s*")


class WiderFaces(NamedTuple):
    """Faces of I images. N faces."""

    names: list[str]  # I, such as ``0--Parade/0_Parade_marchingband_1_849.jpg``
    offsets: NDArray[np.int64]  # (I + 1,)
    boxes_xywh: NDArray[np.float64]  # (N, 4) corner and size, original px
    invalid: NDArray[np.bool_]  # (N,) too small or unclear to be learned
    occluded: NDArray[np.bool_]  # (N,) partly or heavily


def image_key(name: str) -> str:
    """What an image is called in every file: event and name, without the folders before and without the suffix."""
    event, _, stem = name.replace("\\", "/").rpartition("/")
    base, dot, suffix = stem.rpartition(".")
    return f"{event.rpartition('/')[2]}/{base if dot and f'.{suffix.lower()}' in _SUFFIXES else stem}"


def read_faces(path: Path) -> WiderFaces:
    """The faces of a text or MATLAB file.

    Raises:
        DataError: it cannot be read, or its counts disagree; the line or image is named.
    """
    return _from_mat(path) if path.suffix.lower() == ".mat" else _from_text(path)


def read_subset(path: Path, faces: WiderFaces) -> NDArray[np.bool_]:
    """(N,) which of ``faces`` count, by a ``wider_<subset>_val.mat``.

    Raises:
        DataError: it cannot be read, or is of other images.
    """
    lists = _by_event(path, read_mat(path, ["event_list", "file_list", "gt_list"]), ("gt_list",))
    if [image_key(name) for name in lists.names] != [image_key(name) for name in faces.names]:
        raise DataError(f"{path} lists other images than wider_face_val.mat beside it; take both from one publication")
    chosen = [_column(rows) for rows in lists.columns["gt_list"]]
    counts = np.diff(faces.offsets)
    for name, rows, count in zip(faces.names, chosen, counts.tolist(), strict=True):
        if len(rows) and not 1 <= rows.min() <= rows.max() <= count:
            raise DataError(
                f"{path}: {name} counts face {int(rows.max())} of {count}; take both files from one publication"
            )
    counted = np.zeros(len(faces.boxes_xywh), np.bool_)
    starts = np.repeat(faces.offsets[:-1], [len(rows) for rows in chosen])
    counted[starts + np.concatenate([*chosen, np.zeros(0)]).astype(np.int64) - 1] = True
    return counted


def _from_text(path: Path) -> WiderFaces:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; expected the text file of WIDER FACE, in UTF-8") from error
    names: list[str] = []
    counts: list[int] = []
    rows: list[str] = []
    numbers: list[int] = []  # of these lines, from 1
    place = 0
    while place < len(lines):
        name = lines[place].strip()
        if not name:
            place += 1
            continue
        if not _is_name(name):
            before = f"; {names[-1]} is said to have {counts[-1]} faces" if names else ""
            raise DataError(f"{path}, line {place + 1}: expected the name of an image, got {name[:80]!r}{before}")
        count = _count(path, lines, place + 1, name)
        end = place + 2 + max(count, 1)
        taken = lines[place + 2 : end]
        wrong = next((k for k, line in enumerate(taken) if len(line.split()) < _COLUMNS or _is_name(line)), None)
        if count == 0 and (wrong is not None or not taken):  # some copies leave the line of zeros out
            end, taken, wrong = place + 2, [], None
        if wrong is not None or len(taken) < count:
            at = place + 2 + (len(taken) if wrong is None else wrong)
            got = repr(lines[at].strip()[:80]) if at < len(lines) else "the end of the file"
            which = f"face {at - place - 1} of the {count} of {name}"
            raise DataError(
                f"{path}, line {at + 1}: expected {which}, ten numbers, got {got}; correct the count or the faces"
            )
        names.append(name)
        counts.append(count)
        if count:
            rows += taken
            numbers += range(place + 3, end + 1)
        place = end
    table = _parsed(path, rows, numbers)
    return _faces(path, names, counts, table[:, :4], table[:, _INVALID], table[:, _OCCLUSION])


def _is_name(line: str) -> bool:
    return line.strip().lower().endswith(_SUFFIXES)


def _count(path: Path, lines: list[str], place: int, name: str) -> int:
    text = lines[place].strip() if place < len(lines) else "the end of the file"
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise DataError(f"{path}, line {place + 1}: expected the number of faces of {name}, got {text[:80]!r}")
    return int(text)


def _parsed(path: Path, rows: list[str], numbers: list[int]) -> NDArray[np.float64]:
    """(N, 10) the numbers of the lines ``rows``, which are those of ``numbers`` in the file."""
    texts = [row.split()[:_COLUMNS] for row in rows]
    try:
        return np.fromiter(map(float, chain.from_iterable(texts)), np.float64).reshape(-1, _COLUMNS)
    except ValueError as error:
        for row, number in zip(rows, numbers, strict=True):
            if not _NUMBERS.fullmatch(row):
                raise DataError(
                    f"{path}, line {number}: expected ten numbers of a face, got {row.strip()[:80]!r}; correct the line"
                ) from error
        raise


def _from_mat(path: Path) -> WiderFaces:
    wanted = ("face_bbx_list", "invalid_label_list", "occlusion_label_list")
    lists = _by_event(path, read_mat(path, ["event_list", "file_list", *wanted]), wanted)
    boxes = [np.asarray(one, np.float64).reshape(-1, 4) for one in lists.columns[wanted[0]]]
    invalid, occlusion = ([_column(one) for one in lists.columns[name]] for name in wanted[1:])
    for name, *given in zip(lists.names, boxes, invalid, occlusion, strict=True):
        counts = [len(one) for one in given]
        if len(set(counts)) > 1:
            raise DataError(f"{path}: {name} has {counts[0]} boxes and {counts[1]}, {counts[2]} marks; fetch it again")
    names = [f"{name}.jpg" for name in lists.names]
    joined = [np.concatenate([*one, np.zeros(0)]) for one in (invalid, occlusion)]
    return _faces(path, names, [len(one) for one in boxes], np.concatenate([*boxes, np.zeros((0, 4))]), *joined)


def _faces(
    path: Path,
    names: list[str],
    counts: list[int],
    boxes_xywh: NDArray[np.float64],
    invalid: NDArray[np.float64],
    occlusion: NDArray[np.float64],
) -> WiderFaces:
    if not names:
        raise DataError(f"{path} has no images; give a file of WIDER FACE's annotations")
    offsets = np.cumsum([0, *counts]).astype(np.int64)
    return WiderFaces(names, offsets, boxes_xywh, invalid != 0, occlusion != 0)


class _Lists(NamedTuple):
    names: list[str]  # I, event and name
    columns: dict[str, list[MatValue]]  # I each


def _by_event(path: Path, found: dict[str, MatValue], wanted: tuple[str, ...]) -> _Lists:
    """The cells of each image, event after event."""
    missing = [name for name in ("event_list", "file_list", *wanted) if not isinstance(found.get(name), list)]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; give a file of WIDER FACE's annotations")
    events, *cells = (found[name] for name in ("event_list", "file_list", *wanted))
    names: list[str] = []
    columns: dict[str, list[MatValue]] = {name: [] for name in wanted}
    for number, event in enumerate(events):
        inside = [one[number] for one in cells if number < len(one)]
        lists = [one for one in inside if isinstance(one, list)]
        if not isinstance(event, str) or len(lists) <= len(wanted) or len({len(one) for one in lists}) > 1:
            raise DataError(f"{path}: the lists of event {number + 1} do not agree; fetch it again")
        names += [f"{event}/{name}" for name in lists[0]]
        for name, one in zip(wanted, lists[1:], strict=True):
            columns[name] += one
    return _Lists(names, columns)


def _column(value: MatValue) -> NDArray[np.float64]:
    return np.asarray(value, np.float64).reshape(-1)
