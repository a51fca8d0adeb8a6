"""Regions in which what shows a class is known, because it was put there."""

import numpy as np

from sniper.new_classes.examples import Examples

CHANNELS = 24


def planted(
    classes: int, photos: int, *, regions: int = 8, background_photos: int = 0, seed: int = 0
) -> tuple[Examples, np.ndarray]:
    """Photos of some classes, and the row of the region of each that shows it (-1: none).

    The other regions are noise around directions that all photos share, as ground is.
    """
    random = np.random.default_rng(seed)
    directions = random.normal(size=(classes, CHANNELS)) * 1.5
    ground = random.normal(size=(3, CHANNELS))
    features, labels, numbers, boxes, scores, shown = [], [], [], [], [], []
    of_photos = [label for label in range(classes) for _ in range(photos)] + [-1] * background_photos
    for number, label in enumerate(of_photos):
        place = int(random.integers(regions)) if label >= 0 else -1
        shown.append(number * regions + place if label >= 0 else -1)
        for region in range(regions):
            middle = directions[label] if region == place else ground[random.integers(3)]
            features.append(middle + 0.3 * random.normal(size=CHANNELS))
            boxes.append([20 * region, 0, 20 * region + 15, 15])
            scores.append(random.uniform(0.2, 0.9))
        labels += [label] * regions
        numbers += [number] * regions
    columns = np.array(labels, np.int32), np.array(numbers, np.int32)
    return (
        Examples(np.array(features, np.float32), *columns, np.array(boxes, np.float32), np.array(scores, np.float32)),
        np.array(shown),
    )
