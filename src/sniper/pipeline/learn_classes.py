"""Learn classes from folders of photos without boxes, and change what was learned."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sniper.errors import DataError
from sniper.new_classes.examples import BACKGROUND, Examples
from sniper.new_classes.head import ClassHead, Features, Photo
from sniper.new_classes.head_file import load_head, save_head
from sniper.new_classes.held_out import fit_best
from sniper.new_classes.selection import Bags, choose_regions
from sniper.pipeline.class_model import region_source
from sniper.pipeline.learned import (
    LearnedClasses,
    few_warnings,
    learned_photos,
    odd_warnings,
    similar_photos,
    similar_warnings,
)
from sniper.pipeline.model import Model
from sniper.pipeline.photo_folder import BACKGROUND_FOLDER, ClassPhoto, read_photo_folder
from sniper.pipeline.photo_regions import PhotoRegions, describe_photos
from sniper.pipeline.region_store import RegionStore
from sniper.pipeline.shards import opened

OnProgress = Callable[[int], None]


def learn_classes(
    checkpoint: Path | str | Model,
    folder: Path | str,
    output: Path | str | None = None,
    *,
    features: str = "detector",
    feature_weights: str | None = None,
    device: str = "auto",
    store: RegionStore | None = None,
    on_progress: OnProgress | None = None,
) -> LearnedClasses:
    """Learn classes from photos: one subfolder a class, no boxes needed.

    Boxes are used where a Pascal VOC XML lies beside a photo. ``docs/new_classes.md`` says how regions are chosen.

    Args:
        checkpoint: the detector that finds regions; one that was trained without classes is best
            (``rfcn3k/objectness``).
        folder: its subfolders are classes; one of the name ``background`` holds photos of none of them.
        output: file to write, ``.safetensors``; none: no file.
        features: what describes regions: ``detector``, its own trunk; or ``torchvision/<model>`` or a model of timm,
            which sees a crop of each.
        feature_weights: of that model: a file; none: ImageNet's, downloaded.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        store: where described regions are kept; none: the cache folder.
        on_progress: called with the number of photos done.

    Raises:
        DataError: the folder cannot be learned from.
        CheckpointError, RecipeError, StorageError: what cannot be used.
    """
    photos = read_photo_folder(folder)
    names = tuple(dict.fromkeys(photo.class_name for photo in photos if photo.class_name is not None))
    _require_negatives(names, photos, folder)
    model = opened(checkpoint, None, device)
    asked = _Asked(model, features, feature_weights, store, on_progress)
    return _learn(asked, photos, names, None, output)


def add_classes(
    head: Path | str | ClassHead,
    checkpoint: Path | str | Model,
    folder: Path | str,
    output: Path | str | None = None,
    *,
    device: str = "auto",
    store: RegionStore | None = None,
    on_progress: OnProgress | None = None,
) -> LearnedClasses:
    """Learn more classes beside those of a file, whose photos are not needed again; arguments as ``learn_classes``.

    A class that is there already is learned anew from the photos in its folder.
    """
    known = head if isinstance(head, ClassHead) else load_head(head)
    photos = read_photo_folder(folder)
    new = tuple(dict.fromkeys(photo.class_name for photo in photos if photo.class_name is not None))
    if not new:
        raise DataError(f"{folder} has no class beside {BACKGROUND_FOLDER}; add a subfolder of photos for each")
    left = tuple(name for name in known.class_names if name not in new)
    rest = None if not left else _without(known, [name for name in known.class_names if name in new])
    model = opened(checkpoint, None, device)
    if known.features.detector != model.digest():
        raise DataError(
            f"the classes {', '.join(known.class_names[:5])} were learned with another detector; give that checkpoint"
        )
    asked = _Asked(model, known.features.name, known.features.weights, store, on_progress)
    return _learn(asked, photos, left + new, rest, output)


def remove_classes(
    head: Path | str | ClassHead, class_names: Sequence[str], output: Path | str | None = None
) -> ClassHead:
    """Forget classes; the others are not learned again, and only what tells them apart is computed anew.

    Raises:
        DataError: there is no such class, or too little is left.
    """
    known = head if isinstance(head, ClassHead) else load_head(head)
    absent = [name for name in class_names if name not in known.class_names]
    if absent:
        raise DataError(f"there is no class {absent[0]!r}; the classes are {', '.join(known.class_names)}")
    if len(set(class_names)) == len(known):
        raise DataError(f"without {', '.join(class_names)} no class would be left; remove the file instead")
    rest = _without(known, class_names)
    if len(rest) == 1 and not (rest.examples.labels == BACKGROUND).any():
        raise DataError(f"{rest.class_names[0]} alone has nothing to be told from; keep another class")
    if output is not None:
        save_head(output, rest)
    return rest


class _Asked(NamedTuple):
    """With what regions are found and described."""

    model: Model
    features: str
    feature_weights: str | None
    store: RegionStore | None
    on_progress: OnProgress | None


def _learn(
    asked: _Asked,
    photos: list[ClassPhoto],
    names: tuple[str, ...],
    known: ClassHead | None,
    output: Path | str | None,
) -> LearnedClasses:
    start = time.perf_counter()
    source = region_source(asked.model, asked.features, asked.feature_weights)
    store = asked.store or RegionStore()
    described = list(describe_photos(asked.model, source, photos, store=store, on_progress=asked.on_progress))
    store.trim()
    bags = _bags(photos, described, names)
    alike = similar_photos([one.thumbnail for one in described])
    earlier = () if known is None else known.photos
    shift = len(earlier)
    others = None if known is None else known.examples
    chosen = choose_regions(bags, others, len(names))
    numbered = Examples(chosen.features, chosen.labels, chosen.photos + np.int32(shift), chosen.boxes, chosen.scores)
    examples = numbered if others is None else Examples.join([others, numbered])
    groups = alike + shift if known is None else np.concatenate([known.groups, alike + shift])
    fitted = fit_best(examples, groups, len(names))
    head = ClassHead(
        names,
        fitted.classifier,
        fitted.calibration,
        fitted.expected,
        Features(source.name, source.digest(), asked.feature_weights, asked.model.digest()),
        examples,
        earlier + tuple(Photo(photo.name, photo.content) for photo in photos),
        groups,
    )
    if output is not None:
        save_head(output, head)
    learned = learned_photos(photos, examples, shift, names, fitted)
    warnings = (*similar_warnings(photos, alike), *odd_warnings(learned, head), *few_warnings(head))
    path = None if output is None else Path(output)
    return LearnedClasses(head, learned, warnings, time.perf_counter() - start, path)


def _require_negatives(names: tuple[str, ...], photos: list[ClassPhoto], folder: Path | str) -> None:
    if not names:
        raise DataError(f"{folder} has no class beside {BACKGROUND_FOLDER}; add a subfolder of photos for each")
    if len(names) == 1 and all(photo.class_name is not None for photo in photos):
        raise DataError(
            f"{folder} has one class, {names[0]}, and nothing to tell it from; add a second class, or a subfolder "
            f"{BACKGROUND_FOLDER} with photos that do not show it"
        )


def _bags(photos: list[ClassPhoto], described: list[PhotoRegions], names: tuple[str, ...]) -> Bags:
    counts = [len(one.scores) for one in described]
    for photo, count in zip(photos, counts, strict=True):
        if not count:
            raise DataError(f"{photo.path}: nothing can be described in it; use a larger photo")
    label = {name: number for number, name in enumerate(names)}
    labels = [BACKGROUND if photo.class_name is None else label[photo.class_name] for photo in photos]
    regions = Examples(
        np.concatenate([one.features for one in described]),
        np.repeat(np.array(labels, np.int32), counts),
        np.repeat(np.arange(len(photos), dtype=np.int32), counts),
        np.concatenate([one.boxes for one in described]),
        np.concatenate([one.scores for one in described]),
    )
    starts = np.cumsum([0, *counts[:-1]])
    given = [start + np.arange(one.given) for start, one in zip(starts, described, strict=True)]
    return Bags(regions, np.concatenate(given).astype(np.int64))


def _without(head: ClassHead, class_names: Sequence[str]) -> ClassHead:
    """The other classes, fitted on their regions alone."""
    kept = [number for number, name in enumerate(head.class_names) if name not in class_names]
    new_label = np.full(len(head) + 1, BACKGROUND - 1, np.int32)  # the last one stands for background
    new_label[kept], new_label[-1] = np.arange(len(kept)), BACKGROUND
    gone = np.isin(head.examples.labels, [n for n in range(len(head)) if n not in kept])
    photos_gone = np.unique(head.examples.photos[gone])
    rest = head.examples.take(~np.isin(head.examples.photos, photos_gone))
    present = np.unique(rest.photos)
    place = np.full(len(head.photos), -1, np.int32)
    place[present] = np.arange(len(present))
    labels = new_label[rest.labels]
    examples = Examples(rest.features, labels, place[rest.photos], rest.boxes, rest.scores)
    groups = head.groups[present]
    fitted = fit_best(examples, groups, len(kept))
    return ClassHead(
        tuple(head.class_names[number] for number in kept),
        fitted.classifier,
        fitted.calibration,
        fitted.expected,
        head.features,
        examples,
        tuple(head.photos[number] for number in present.tolist()),
        groups,
    )
