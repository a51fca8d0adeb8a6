"""The cases of ``fuzz.py``: sound datasets and images, mutated from a seed, and how each is read."""

import copy
import json
import random
import re
import struct
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

from sound_files import SOUND_COCO, SOUND_IMAGES, SOUND_LABELS, SOUND_VOC, SOUND_YOLO, photo_like

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
    pixels = Image.fromarray(photo_like(64, 48))
    for form in ANNOTATIONS:
        for place in ("images", "labels", "Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / form / place).mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        pixels.save(folder / "yolo" / "images" / f"{name}.png")
        pixels.save(folder / "voc" / "JPEGImages" / f"{name}.jpg")
        (folder / "voc" / "Annotations" / f"{name}.xml").write_text(SOUND_VOC.replace("NAME", name))
    (folder / "voc" / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")


def write(form: str, number: int, seed: int, folder: Path) -> Path:
    """Write a case; the path that is read."""
    chance = random.Random(f"{seed} {form} {number}")
    if form in IMAGES:
        path = folder / f"case{SUFFIXES[form]}"
        content, other = chance.choice(SOUND_IMAGES[form]), chance.choice(SOUND_IMAGES[chance.choice(IMAGES)])
        path.write_bytes(_mutated(chance, content, other))
        return path
    place = folder / form
    if form == "coco":
        text = json.dumps(_changed_tree(chance, json.loads(json.dumps(SOUND_COCO))))
        (place / "case.json").write_bytes(_mutated_text(chance, text, share=0.4))
        return place / "case.json"
    if form == "voc":
        page = _changed_xml(chance, SOUND_VOC.replace("NAME", "a"))
        (place / "Annotations" / "a.xml").write_bytes(_mutated_text(chance, page, share=0.4))
        lists = "a\nb\n" if chance.random() < 0.8 else _mutated_text(chance, "a\nb\n").decode("utf-8", "replace")
        (place / "ImageSets" / "Main" / "train.txt").write_text(lists, errors="replace")
        return place
    which = chance.random()
    described = yaml.safe_dump(_changed_tree(chance, yaml.safe_load(SOUND_YOLO)))
    (place / "data.yaml").write_bytes(
        _mutated_text(chance, described, share=0.4) if which < 0.5 else SOUND_YOLO.encode()
    )
    (place / "labels" / "a.txt").write_bytes(
        _mutated_text(chance, SOUND_LABELS) if which >= 0.4 else SOUND_LABELS.encode()
    )
    (place / "labels" / "b.txt").write_text(SOUND_LABELS)
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
