"""Small copies of the layouts in which people have their data, as their publishers zip them."""

import shutil
from collections.abc import Callable
from pathlib import Path

from rectangle_set import make_set

TRAIN, VAL = 6, 3  # images


def kangaroo(folder: Path) -> Path:
    """VOC: ``annots`` and ``images``; the size is said, no splits."""
    made = make_set(folder, "voc", images=TRAIN)
    (made / "Annotations").rename(made / "annots")
    (made / "JPEGImages").rename(made / "images")
    return made


def raccoon(folder: Path) -> Path:
    """VOC: ``annotations`` and ``images``, and lists for another program."""
    made = make_set(folder, "voc", images=TRAIN)
    (made / "Annotations").rename(made / "annotations")
    (made / "JPEGImages").rename(made / "images")
    (made / "data").mkdir()
    (made / "data" / "train_labels.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")
    return made


def playing_cards(folder: Path) -> Path:
    """VOC: the XML beside the pictures in ``train`` and ``test``."""
    for split, images, seed in (("train", TRAIN, 0), ("test", VAL, 1)):
        made = make_set(folder / f"{split}.made", "voc", images=images, seed=seed)
        (folder / split).mkdir()
        for inner in ("Annotations", "JPEGImages"):
            for file in (made / inner).iterdir():
                file.rename(folder / split / file.name)
        shutil.rmtree(made)
    (folder / "train_labels.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")
    return folder


def ultralytics(folder: Path) -> Path:
    """YOLO: a ``data.yaml`` with train and val, and numbered names."""
    for split, images, seed in (("train", TRAIN, 0), ("val", VAL, 1)):
        made = make_set(folder / f"{split}.made", "yolo", images=images, seed=seed).parent
        for inner in ("images", "labels"):
            (folder / inner).mkdir(exist_ok=True)
            (made / inner).rename(folder / inner / split)
        shutil.rmtree(made)
    names = "names:\n  0: blue\n  1: green\n  2: red\n"
    text = f"path: {folder}\ntrain: images/train\nval: images/val\ntest:  # none\n\n{names}"
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


def coco_elsewhere(folder: Path) -> Path:
    """COCO: ``annotations/instances_{train,val}2017.json``; the pictures are in ``folder/pictures``."""
    (folder / "set" / "annotations").mkdir(parents=True)
    (folder / "pictures").mkdir()
    for split, images, seed in (("train", TRAIN, 0), ("val", VAL, 1)):
        made = make_set(folder / f"{split}.made", images=images, seed=seed)
        text = made.read_text()
        for file in (made.parent / "images").iterdir():
            file.rename(folder / "pictures" / f"{split}-{file.name}")
            text = text.replace(f'"{file.name}"', f'"{split}-{file.name}"')
        (folder / "set" / "annotations" / f"instances_{split}2017.json").write_text(text)
    return folder / "set"


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    layout.__name__: layout for layout in (kangaroo, raccoon, playing_cards, ultralytics, coco_elsewhere)
}
