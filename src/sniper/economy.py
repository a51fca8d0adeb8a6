"""How much accuracy a coarser scale is expected to cost. ``docs/method.md``, "Automatic levels"."""

import numpy as np
from numpy.typing import NDArray

# AP of objects of one size, as a share of their AP at their best scale, by their size in network px over the size that
# the detector sees best: measured near convergence (benchmarks/RESULTS.md, "Size response").
RESPONSE_AT = (0.15, 0.2, 0.3, 0.42, 0.6, 0.84, 1.2)
RESPONSE = (0.11, 0.26, 0.45, 0.65, 0.80, 0.95, 1.0)
LEAST = 0.1  # of the scale: below a hundredth of the pixels nothing of interest is left to save


def expected_response(
    sizes: NDArray[np.float64], classes: NDArray[np.integer], scales: NDArray[np.float64], object_px: float
) -> NDArray[np.float64]:
    """(S,) share of the best AP that objects are expected to have at each scale, the mean over their classes.

    Args:
        sizes: (N,) sqrt of box area, original px, all positive.
        classes: (N,) class of each object.
        scales: (S,) network px per original px.
        object_px: size that the detector sees best, network px.
    """
    grid = np.linspace(np.log(sizes.min()), np.log(sizes.max()), 257)  # a histogram: bounded in memory
    place = np.searchsorted(grid[:-1], np.log(sizes), side="right") - 1
    share = np.bincount(place, 1 / np.bincount(classes)[classes], len(grid) - 1) / len(np.unique(classes))
    middle = (grid[:-1] + grid[1:]) / 2
    shown = middle[None] + np.log(scales)[:, None] - np.log(object_px)
    return np.interp(shown, np.log(RESPONSE_AT), RESPONSE) @ share


def economical_scale(
    sizes: NDArray[np.float64], classes: NDArray[np.integer], scale: float, *, economy: float, object_px: float
) -> float:
    """The coarsest scale that is expected to keep ``1 - economy`` of the AP at ``scale``; arguments as above.

    Without objects it is the scale itself.
    """
    if not len(sizes):
        return scale
    tried = scale * np.geomspace(LEAST, 1, 128)
    expected = expected_response(sizes, classes, tried, object_px)
    return float(tried[np.argmax(expected >= (1 - economy) * expected[-1])])
