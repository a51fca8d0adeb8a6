"""Classes of a detector as classes of a dataset that draws its lines elsewhere: 3,000 fine ones as 200, say."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sniper.data.detections import DetectionTable
from sniper.data.text_files import lines_of
from sniper.errors import DataError


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Which class of the dataset a detection of each class of the detector counts for."""

    names: tuple[str, ...]  # of the dataset, in the order of the file
    labels: NDArray[np.int32]  # (C,) index into ``names`` for each class of the detector; -1: none

    def __call__(self, detections: DetectionTable) -> DetectionTable:
        """The detections with the dataset's labels; those of classes without one are left out."""
        labels = self.labels[detections.labels]
        kept = labels >= 0
        counts = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            detections,
            offsets=counts[detections.offsets],
            boxes_xyxy=detections.boxes_xyxy[kept],
            scores=detections.scores[kept],
            labels=labels[kept],
            levels=detections.levels[kept],
            masks=None if detections.masks is None else detections.masks.take(np.flatnonzero(kept)),
        )


def read_class_map(file: Path | str, class_names: tuple[str, ...]) -> ClassMap:
    """Read lines of a detector's class, a tab, and the dataset's; several of the first may go to one of the second.

    Args:
        file: the text file.
        class_names: those of the detector.

    Raises:
        DataError: it cannot be read, a line is not two names, a class comes twice or is not the detector's.
    """
    lines = lines_of(Path(file), "a detector's class, a tab and the dataset's class")
    index = {name: label for label, name in enumerate(class_names)}
    names: dict[str, int] = {}
    labels = np.full(len(class_names), -1, np.int32)
    for number, line in enumerate(lines, start=1):
        own, _, other = (part.strip() for part in line.partition("\t"))
        if not other:
            raise DataError(
                f"{file}: entry {number} is {line!r}; expected a detector's class, a tab, a dataset's class"
            )
        if own not in index:
            raise DataError(
                f"{file}: entry {number} maps {own!r}, which the detector does not know; remove or correct it"
            )
        if labels[index[own]] >= 0:
            raise DataError(f"{file}: entry {number} maps {own!r} a second time; keep one of them")
        labels[index[own]] = names.setdefault(other, len(names))
    if not names:
        raise DataError(f"{file} maps no class; expected lines of a detector's class, a tab and the dataset's class")
    return ClassMap(tuple(names), labels)
