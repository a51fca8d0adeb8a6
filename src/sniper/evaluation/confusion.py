"""Which class is taken for which."""

import numpy as np
from numpy.typing import NDArray

from sniper.evaluation.error_types import Verdict, Verdicts


def confusion_matrix(verdicts: Verdicts, classes: int) -> NDArray[np.int64]:
    """(C + 1, C + 1) counts: rows are what an object is, columns what it is taken for.

    The last row is background, so it counts detections on no object, duplicates and localisation errors too; the last
    column is objects that no detection takes for anything. An object that is found and taken for another class as well
    counts in both columns. Ignored objects, and detections on them, do not count.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    verdict, labels, matched = verdicts.verdict, verdicts.labels, verdicts.matched
    on_object = (verdict == Verdict.TRUE_POSITIVE) | (verdict == Verdict.WRONG_CLASS)
    np.add.at(counts, (verdicts.object_labels[matched[on_object]], labels[on_object]), 1)
    alone = ~on_object & (verdict != Verdict.IGNORED)
    counts[classes, :classes] += np.bincount(labels[alone], minlength=classes)
    missed = ~verdicts.object_ignored
    missed[matched[on_object]] = False
    counts[:classes, classes] += np.bincount(verdicts.object_labels[missed], minlength=classes)
    return counts
