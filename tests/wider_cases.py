"""A small dataset in WIDER FACE's official layout, with and without images and published lists."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mat_cases import write_mat

Xywh = tuple[int, int, int, int]


class Faces(NamedTuple):
    """An image: its faces, which of them are invalid, and which count as easy, medium and hard (from 1)."""

    name: str  # event/stem
    boxes_xywh: list[Xywh]
    invalid: tuple[int, ...] = ()
    easy: tuple[int, ...] = ()
    medium: tuple[int, ...] = ()
    hard: tuple[int, ...] = ()


IMAGES = [
    Faces("0--Parade/a", [(10, 10, 40, 50), (60, 10, 12, 12), (80, 60, 5, 6)], (3,), (1,), (1, 2), (1, 2, 3)),
    Faces("0--Parade/b", []),
    Faces("61--Street/c", [(0, 0, 30, 30)], (), (1,), (1,), (1,)),
]


def write_text_file(folder: Path, split: str, images: list[Faces] = IMAGES) -> Path:
    """``wider_face_split/wider_face_<split>_bbx_gt.txt``."""
    lines = []
    for image in images:
        rows = [
            f"{' '.join(map(str, box))} 0 0 0 {int(number in image.invalid)} {number % 3} 0 "
            for number, box in enumerate(image.boxes_xywh, 1)
        ]
        lines += [f"{image.name}.jpg", str(len(rows)), *(rows or ["0 0 0 0 0 0 0 0 0 0 "])]
    file = folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    return file


def write_mat_files(folder: Path, images: list[Faces] = IMAGES) -> Path:
    """``wider_face_val.mat`` and the three lists of faces that count."""
    events = list(dict.fromkeys(image.name.partition("/")[0] for image in images))

    def cells(value: object) -> list[list[object]]:
        return [[value(image) for image in images if image.name.startswith(f"{event}/")] for event in events]

    def numbers_of(image: Faces) -> np.ndarray:
        return np.arange(1, len(image.boxes_xywh) + 1)[:, None]

    given = {
        "event_list": events,
        "file_list": cells(lambda image: image.name.partition("/")[2]),
        "face_bbx_list": cells(lambda image: np.array(image.boxes_xywh, np.int32).reshape(-1, 4)),
        "invalid_label_list": cells(lambda image: np.isin(numbers_of(image), image.invalid).astype(np.uint8)),
        "occlusion_label_list": cells(lambda image: (numbers_of(image) % 3).astype(np.uint8)),
    }
    write_mat(folder / "wider_face_val.mat", given)
    for subset in ("easy", "medium", "hard"):
        listed = cells(lambda image, subset=subset: np.array(getattr(image, subset), np.float64).reshape(-1, 1))
        write_mat(folder / f"wider_{subset}_val.mat", given | {"gt_list": listed})
    return folder


def write_images(folder: Path, split: str, images: list[Faces] = IMAGES) -> Path:
    """``WIDER_<split>/images``, of 100 x 80 px."""
    root = folder / f"WIDER_{split}" / "images"
    for image in images:
        (root / image.name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 80)).save(root / f"{image.name}.jpg")
    return root
