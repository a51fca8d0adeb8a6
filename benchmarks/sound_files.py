"""Sound images and annotations, from which ``fuzz_cases.py`` makes damaged ones."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def photo_like(width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 slopes with noise on them."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return (np.stack([x * 3, y * 4, (x + y) * 2], axis=-1) % 216 + noise).astype(np.uint8)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _bases() -> dict[str, list[bytes]]:
    """Sound images of every kind that the formats have."""
    photo = Image.fromarray(photo_like(61, 47))
    deep = Image.fromarray(photo_like(61, 47)[:, :, 0].astype(np.uint16) * 16)
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


SOUND_IMAGES = _bases()
SOUND_COCO = {
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
SOUND_YOLO = "path: .\ntrain: images\nval: images\nnc: 2\nnames:\n  0: car\n  1: person\n"
SOUND_LABELS = "0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.1 0.1\n1 0.3 0.3 0.6 0.3 0.6 0.6 0.3 0.6\n"
SOUND_VOC = """<annotation>
  <folder>VOC2007</folder><filename>NAME.jpg</filename>
  <size><width>64</width><height>48</height><depth>3</depth></size>
  <object><name>car</name><difficult>0</difficult><truncated>1</truncated>
    <bndbox><xmin>10</xmin><ymin>12</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
  <object><name>dog</name><bndbox><xmin>1.5</xmin><ymin>1</ymin><xmax>64</xmax><ymax>48</ymax></bndbox></object>
</annotation>
"""
