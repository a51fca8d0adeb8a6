"""What an evaluation says where its protocols leave COCO out."""

import numpy as np
import pytest

from sniper.data.detections import DetectionTable
from sniper.errors import RecipeError
from sniper.evaluation.error_types import ErrorSplit
from sniper.evaluation.protocol import Score
from sniper.pipeline.evaluate import Evaluation


def test_numbers_are_those_of_any_protocol_and_coco_may_be_missing() -> None:
    nothing = DetectionTable.from_arrays([], np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), None, np.zeros(0, int))
    done = Evaluation((Score("voc", {"mAP": 0.5}),), nothing, 1.0, 1.0, 1.0, [], ErrorSplit(0, 0, 0, 0, 0, 0, 0.0))
    assert done.as_dict() == {"mAP": 0.5}
    with pytest.raises(RecipeError, match=r"expected a COCO score.*\[voc\]"):
        _ = done.result
