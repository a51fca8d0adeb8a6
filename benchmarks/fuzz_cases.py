"""The cases of ``fuzz.py``: sound datasets and images, mutated from a seed, and how each is read."""

import copy
import json
import random
import re
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

ANNOTATIONS = ("coco", "yolo", "voc")
IMAGES = ("jpeg", "png", "tiff", "webp")
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "webp": ".webp"}

_TOKENS = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e308",
    "1e-320",
    "99999999999999999999",
    "2147483648",
    "-0.5",
    "0.5",
    "1.0000001",
    "null",
    "true",
    "~",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"',
    "'",
    "&a",
    "*a",
    "<<: *a",
    "!!python/object/apply:os.getcwd []",
    "- ",
    "---",
    "\t",
    "\n",
    "\0",
    "\x1b[31m",
    "\ufeff",
    "\ud7ff",
    "\U0001f600",
    "<",
    "</object>",
    "<object/>",
    "<bndbox>",
    "]]>",
    '<!DOCTYPE a [<!ENTITY b "c">]>',
    "&b;",
    "../../etc",
    "/",
    "C:\\a",
    "a" * 5000,
    "[" * 2000,
    "٣",
    "1_000",
    "0x10",
    "1e3",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**70,
    1e308,
    -0.0,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "7",
    "a",
    "\0",
    [],
    {},
    [[]],
    [1, 2, 3],
    [0, 0, 1e30, 1e30],
    {"a": 1},
    {"size": [10, 10], "counts": [5, 95]},
    {"size": [10, 10], "counts": "abc"},
    [[1, 1, 9, 1, 9, 9]],
    ["person"] * 3,
    "x" * 3000,
)
_COUNTS = (0, 1, 2, 3, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def prepare(folder: Path) -> None:
    """The sound parts that datasets need beside the mutated file."""
    pixels = Image.fromarray(_photo(64, 48))
    for form in ANNOTATIONS:
        for place in ("images", "labels", "Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / form / place).mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        pixels.save(folder / "yolo" / "images" / f"{name}.png")
        pixels.save(folder / "voc" / "JPEGImages" / f"{name}.jpg")
        (folder / "voc" / "Annotations" / f"{name}.xml").write_text(_VOC.replace("NAME", name))
    (folder / "voc" / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")


def write(form: str, number: int, seed: int, folder: Path) -> Path:
    """Write a case; the path that is read."""
    chance = random.Random(f"{seed} {form} {number}")
    if form in IMAGES:
        path = folder / f"case{SUFFIXES[form]}"
        path.write_bytes(_mutated(chance, chance.choice(_IMAGES[form]), chance.choice(_IMAGES[chance.choice(IMAGES)])))
        return path
    place = folder / form
    if form == "coco":
        text = json.dumps(_changed_tree(chance, json.loads(json.dumps(_COCO))))
        (place / "case.json").write_bytes(_mutated_text(chance, text, share=0.4))
        return place / "case.json"
    if form == "voc":
        page = _changed_xml(chance, _VOC.replace("NAME", "a"))
        (place / "Annotations" / "a.xml").write_bytes(_mutated_text(chance, page, share=0.4))
        lists = "a\nb\n" if chance.random() < 0.8 else _mutated_text(chance, "a\nb\n").decode("utf-8", "replace")
        (place / "ImageSets" / "Main" / "train.txt").write_text(lists, errors="replace")
        return place
    which = chance.random()
    described = yaml.safe_dump(_changed_tree(chance, yaml.safe_load(_YOLO)))
    (place / "data.yaml").write_bytes(_mutated_text(chance, described, share=0.4) if which < 0.5 else _YOLO.encode())
    (place / "labels" / "a.txt").write_bytes(_mutated_text(chance, _LABELS) if which >= 0.4 else _LABELS.encode())
    (place / "labels" / "b.txt").write_text(_LABELS)
    return place / "data.yaml"


def read(form: str, path: Path) -> None:
    """Read a case through the doors that users come by."""
    if form in ANNOTATIONS:
        from sniper.data.source import load_dataset

        load_dataset(path, "train" if form != "coco" else None)
        return
    from sniper.pixels.open import image_size, open_pixels, where_on_ground
    from sniper.pixels.survey import survey

    survey([path])
    pixels = open_pixels(path, whole_pixels=16e6)
    if not isinstance(pixels, np.ndarray):
        width, height = pixels.size_wh
        pixels.read(0, 0, min(width, 64), min(height, 64))
        pixels.close()
    image_size(path)
    where_on_ground(path)


def _changed_tree(chance: random.Random, tree: Any) -> Any:
    """Some nodes of a JSON document replaced, removed or repeated."""
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        _list_places(tree, places)
        if not places:
            return tree
        inside, key = chance.choice(places)
        action = chance.random()
        if action < 0.65:
            inside[key] = copy.deepcopy(chance.choice(_VALUES))  # a later change must not reach the next case
        elif action < 0.85:
            del inside[key]
        elif isinstance(inside, list):
            inside.extend([inside[key]] * 3)
        else:
            inside[f"{key}2"] = inside[key]
    return tree


def _changed_xml(chance: random.Random, text: str) -> str:
    """Some elements of a page with other text or another name, removed, or repeated."""
    page = ElementTree.fromstring(text)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        pairs = [(outer, inner) for outer in page.iter() for inner in outer]
        if not pairs:
            break
        outer, inner = chance.choice(pairs)
        action = chance.random()
        if action < 0.6:
            inner.text = "".join(c for c in str(chance.choice((*_TOKENS, *_VALUES))) if c.isprintable())
        elif action < 0.75:
            outer.remove(inner)
        elif action < 0.9:
            outer.append(copy.deepcopy(inner))
        else:
            inner.tag = chance.choice(pairs)[1].tag
    return ElementTree.tostring(page, encoding="unicode")


def _list_places(tree: Any, places: list[tuple[Any, Any]]) -> None:
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        places.append((tree, key))
        _list_places(tree[key], places)


def _mutated_text(chance: random.Random, text: str, share: float = 1.0) -> bytes:
    """Tokens of a text replaced, removed, repeated or inserted; sometimes its bytes."""
    if chance.random() >= share:
        return text.encode()
    if chance.random() < 0.25:
        return _mutated(chance, text.encode(), text.encode())
    tokens = re.findall(r"[\w.]+|\s+|.", text)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at, action = chance.randrange(len(tokens)), chance.random()
        if action < 0.5:
            tokens[at] = chance.choice(_TOKENS)
        elif action < 0.65:
            tokens.insert(at, chance.choice(_TOKENS))
        elif action < 0.85:
            del tokens[at : at + chance.choice((1, 1, 3, 10))]
        else:
            tokens[at:at] = tokens[at : at + 20]
        tokens = tokens or [" "]
    return "".join(tokens).encode("utf-8", "replace")


def _mutated(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Bytes of a file changed in one to four ways."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, action = chance.randrange(max(1, len(made))), chance.randrange(8)
        if action == 0:
            del made[at:]
        elif action == 1:
            for _ in range(chance.choice((1, 3, 20))):
                if made:
                    made[chance.randrange(len(made))] = chance.randrange(256)
        elif action == 2:
            del made[at : at + chance.choice((1, 4, 100))]
        elif action == 3:
            made[at:at] = made[at : at + chance.choice((1, 16, 500))]
        elif action == 4:
            made[at : at + chance.choice((2, 32))] = bytes(chance.choice((2, 32)))
        elif action == 5:  # a number, near the beginning, where sizes and offsets are
            where = chance.randrange(max(1, min(len(made), 300)))
            form = chance.choice(("<I", ">I", "<H", ">H"))
            made[where : where + struct.calcsize(form)] = struct.pack(
                form, chance.choice(_COUNTS) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
            )
        elif action == 6:
            made[at:] = other[chance.randrange(max(1, len(other))) :]
        else:
            made[at:at] = chance.randbytes(chance.choice((1, 8, 64)))
    if bytes(made[:4]) == b"\x89PNG" and chance.random() < 0.6:
        _mend_png(made)
    return bytes(made)


def _mend_png(content: bytearray) -> None:
    """Checksums that fit again, so that decoders look further than these."""
    at = 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if at + 12 + length > len(content):
            return
        struct.pack_into(">I", content, at + 8 + length, zlib.crc32(content[at + 4 : at + 8 + length]))
        at += 12 + length


def _photo(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return (np.stack([x * 3, y * 4, (x + y) * 2], axis=-1) % 216 + noise).astype(np.uint8)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _bases() -> dict[str, list[bytes]]:
    """Sound images of every kind that the formats have."""
    photo = Image.fromarray(_photo(61, 47))
    deep = Image.fromarray(_photo(61, 47)[:, :, 0].astype(np.uint16) * 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [photo, photo.rotate(90)]
    jpeg = [
        _saved(photo, "JPEG"),
        _saved(photo, "JPEG", progressive=True, exif=exif),
        _saved(photo.convert("L"), "JPEG"),
        _saved(photo.convert("CMYK"), "JPEG"),
        _saved(photo, "JPEG", subsampling=2, restart_marker_blocks=2),
    ]
    png = [
        _saved(photo, "PNG"),
        _saved(photo.convert("P"), "PNG"),
        _saved(deep, "PNG"),
        _saved(photo.convert("1"), "PNG"),
        _saved(photo.convert("RGBA"), "PNG", exif=exif),
        _saved(photo.convert("LA"), "PNG"),
        _saved(photo, "PNG", save_all=True, append_images=frames),
    ]
    tiff = [
        _saved(photo, "TIFF", compression=one) for one in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    ]
    tiff += [
        _saved(deep, "TIFF"),
        _saved(photo.convert("1"), "TIFF", compression="group4"),
        _saved(photo.convert("P"), "TIFF"),
        _saved(photo.convert("CMYK"), "TIFF"),
        _saved(photo, "TIFF", save_all=True, append_images=frames),
        _saved(photo.convert("F"), "TIFF"),
    ]
    webp = [
        _saved(photo, "WEBP"),
        _saved(photo, "WEBP", lossless=True),
        _saved(photo.convert("RGBA"), "WEBP", exif=exif),
        _saved(photo, "WEBP", save_all=True, append_images=frames),
    ]
    return {"jpeg": jpeg, "png": png, "tiff": tiff, "webp": webp}


_IMAGES = _bases()
_COCO = {
    "info": {"year": 2026},
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (1, 2, 3)],
    "categories": [{"id": 1, "name": "car", "supercategory": "thing"}, {"id": 2, "name": "person"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "bbox": [5.5, 2, 10, 20],
            "area": 100.5,
            "iscrowd": 0,
            "segmentation": [[5.5, 2, 15, 2, 15, 22, 5.5, 22]],
        },
        {
            "id": 3,
            "image_id": 3,
            "category_id": 2,
            "bbox": [0, 0, 9, 9],
            "area": 81,
            "iscrowd": 1,
            "segmentation": {"size": [80, 100], "counts": [0, 9, 7991]},
        },
        {
            "id": 4,
            "image_id": 2,
            "category_id": 1,
            "bbox": [0, 0, 100, 80],
            "area": 8000,
            "iscrowd": 0,
            "segmentation": {"size": [80, 100], "counts": "0`4P3"},
        },
    ],
}
_YOLO = "path: .\ntrain: images\nval: images\nnc: 2\nnames:\n  0: car\n  1: person\n"
_LABELS = "0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.1 0.1\n1 0.3 0.3 0.6 0.3 0.6 0.6 0.3 0.6\n"
_VOC = """<annotation>
  <folder>VOC2007</folder><filename>NAME.jpg</filename>
  <size><width>64</width><height>48</height><depth>3</depth></size>
  <object><name>car</name><difficult>0</difficult><truncated>1</truncated>
    <bndbox><xmin>10</xmin><ymin>12</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
  <object><name>dog</name><bndbox><xmin>1.5</xmin><ymin>1</ymin><xmax>64</xmax><ymax>48</ymax></bndbox></object>
</annotation>
"""
