"""What is to be said of learned classes: what to expect of them, and which photos to look at again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.checks.config import CheckConfig
from sniper.checks.similar import similar_images
from sniper.new_classes.examples import BACKGROUND, Examples
from sniper.new_classes.head import ClassHead
from sniper.new_classes.held_out import Fitted
from sniper.pipeline.photo_folder import ClassPhoto

FEW_PHOTOS = 5  # below this the threshold of a class rests on the others


@dataclass(frozen=True, slots=True)
class LearnedPhoto:
    """A photo of a class, and the regions that it teaches."""

    path: Path
    class_name: str
    boxes_xyxy: NDArray[np.float32]  # (K, 4) original px
    probability: float  # of its own class, from a classifier that has not seen it; not a number: none could be made
    named: str  # what that classifier takes it for; empty: not known


@dataclass(frozen=True, slots=True)
class LearnedClasses:
    """Classes that were learned, and what is to be said of their photos."""

    head: ClassHead
    photos: tuple[LearnedPhoto, ...]  # those that were learned from now
    warnings: tuple[str, ...]
    seconds: float
    path: Path | None = None  # the file


def learned_photos(
    photos: Sequence[ClassPhoto], examples: Examples, shift: int, names: tuple[str, ...], fitted: Fitted
) -> tuple[LearnedPhoto, ...]:
    """Each photo of a class; its number among the examples is its place plus ``shift``."""
    held = fitted.held_out
    probability = np.full(len(examples), np.nan)
    probability[held.rows] = fitted.calibration.probability(held.own)
    named = np.full(len(examples), -1, np.int64)
    named[held.rows] = held.named
    learned = []
    for number, photo in enumerate(photos):
        if photo.class_name is None:
            continue
        rows = np.flatnonzero((examples.photos == number + shift) & (examples.labels != BACKGROUND))
        best = rows[np.argmax(np.nan_to_num(probability[rows], nan=-1.0))]
        taken_for = names[named[best]] if named[best] >= 0 else ""
        one = LearnedPhoto(photo.path, photo.class_name, examples.boxes[rows], float(probability[best]), taken_for)
        learned.append(one)
    return tuple(learned)


def expectation(head: ClassHead) -> str:
    """One sentence: what the threshold keeps and rejects, as far as held-out photos and classes tell."""
    told, threshold = head.expected, head.calibration.threshold
    rejected = "" if math.isnan(told.rejected) else f"{told.rejected:.0%} of the things of classes left out rejected"
    if math.isnan(told.kept):
        known = f"; {rejected}" if rejected else ""
        return f"threshold {threshold:.2f}: too few photos to leave some out, so what it keeps is not known{known}"
    parts = [f"precision {told.precision:.0%}", f"recall {told.recall:.0%}", f"{told.kept:.0%} of what is named kept"]
    if rejected:
        parts.append(rejected)
    return f"threshold {threshold:.2f}, expected on new photos: {', '.join(parts)}"


def similar_photos(thumbnails: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """(P,) of each photo the first one that looks the same; itself where none does."""
    pairs = similar_images(np.stack(thumbnails), CheckConfig())
    first = np.arange(len(thumbnails))
    for one, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):  # rising: the first is settled
        first[other] = first[one]
    return first


def similar_warnings(photos: Sequence[ClassPhoto], alike: NDArray[np.int64]) -> list[str]:
    """Photos that look the same."""
    return [
        f"{photos[number].path} looks the same as {photos[first].path}: it teaches little more, and the two are left "
        "out together when the threshold is set"
        for number, first in enumerate(alike.tolist())
        if first != number
    ]


def odd_warnings(learned: Sequence[LearnedPhoto], head: ClassHead) -> list[str]:
    """Photos that look like no other of their class."""
    threshold, found = head.calibration.threshold, []
    for photo in learned:
        if math.isnan(photo.probability) or (photo.probability >= threshold and photo.named == photo.class_name):
            continue
        like = f"rather like {photo.named}" if photo.named not in ("", photo.class_name) else "like none of the classes"
        found.append(
            f"{photo.path} looks {like} to a classifier that has not seen it: check that it shows {photo.class_name}, "
            "and the region that was learned from"
        )
    return found


def few_warnings(head: ClassHead) -> list[str]:
    """Classes of few photos."""
    few = [
        f"{name} ({count})"
        for name, count in zip(head.class_names, head.photo_counts().tolist(), strict=True)
        if count < FEW_PHOTOS
    ]
    return [f"fewer than {FEW_PHOTOS} photos of {', '.join(few)}: add some to be surer of these"] if few else []
