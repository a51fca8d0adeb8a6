"""The output forms of other detectors, each from numbers worked out by hand."""

import numpy as np
import pytest

from facts import facts
from sniper.backends.onnx.form import BoxesForm, DetrForm, FastestDetForm, YoloForm, YunetForm
from sniper.backends.onnx.outputs import (
    DECODERS,
    decode_boxes,
    decode_detr,
    decode_fastestdet,
    decode_yolo,
    decode_yunet,
)
from sniper.errors import RecipeError

HW = 32, 64


def test_yolo_rows_with_objectness() -> None:
    found = decode_yolo(YoloForm(kind="yolo", objectness=True), [np.float32([[[20, 10, 8, 4, 0.5, 0.2, 0.8]]])], HW, 2)
    assert found.boxes.tolist() == [[[16, 8, 24, 12]]]
    assert found.labels.tolist() == [[1]]
    np.testing.assert_allclose(found.scores, [[0.4]], rtol=1e-6)


def test_yolo_columns_without_objectness() -> None:
    columns = np.float32([[20, 10, 8, 4, 0.9, 0.1, 0.0]]).reshape(1, 7, 1)
    found = decode_yolo(YoloForm(kind="yolo"), [columns], HW, 3)
    assert found.boxes.tolist() == [[[16, 8, 24, 12]]]
    assert (found.labels.tolist(), found.scores.tolist()) == ([[0]], [[np.float32(0.9)]])


def test_yolo_on_grids_has_cells_row_by_row_and_sizes_as_logarithms() -> None:
    raw = np.zeros((1, 8 + 2, 6), np.float32)  # 2 x 4 cells of 16 px, 1 x 2 cells of 32 px
    raw[0, 5, :2], raw[0, 9, 2:4] = (0.5, 0.25), np.log(2)
    found = decode_yolo(YoloForm(kind="yolo", objectness=True, logits=True, strides=(16, 32)), [raw], HW, 1)
    assert found.boxes[0, 5].tolist() == [16, 12, 32, 28]  # row 1, column 1: centre (1.5, 1.25) * 16, one cell large
    np.testing.assert_allclose(found.boxes[0, 9], [0, -32, 64, 32], atol=1e-4)
    np.testing.assert_allclose(found.scores, 0.25)


def test_detr_by_sigmoid_and_by_softmax() -> None:
    boxes = np.float32([[[0.5, 0.5, 0.5, 0.25]]])
    by_sigmoid = decode_detr(DetrForm(kind="detr"), [np.float32([[[0, -9]]]), boxes], HW, 2)
    assert by_sigmoid.boxes.tolist() == [[[16, 12, 48, 20]]]
    assert by_sigmoid.scores.tolist() == [[0.5]]
    no_object_last = np.log(np.float32([[[0.2, 0.3, 0.5]]]))
    by_softmax = decode_detr(DetrForm(kind="detr", activation="softmax"), [no_object_last, boxes], HW, 2)
    np.testing.assert_allclose(by_softmax.scores, [[0.3]], rtol=1e-6)
    assert by_softmax.labels.tolist() == [[1]]


def test_finished_boxes_without_a_batch_and_labels_from_one() -> None:
    outputs = [np.float32([[0.25, 0.5, 0.5, 1]]), np.float32([0.7]), np.int64([2])]
    found = decode_boxes(BoxesForm(kind="boxes", first_label=1, unit="share"), outputs, HW, 2)
    assert found.boxes.tolist() == [[[16, 16, 32, 32]]]
    assert found.labels.tolist() == [[1]]


def test_fastestdet_cell() -> None:
    raw = np.zeros((1, 5 + 2, 2, 4), np.float32)
    raw[0, :, 1, 2] = 0.5, 0, 0, 0, 0, 0.1, 0.9
    found = decode_fastestdet(FastestDetForm(kind="fastestdet"), [raw], HW, 2)
    assert found.boxes[0, 6].tolist() == [16, 8, 48, 24]  # corner of the cell plus or minus a quarter of the input
    np.testing.assert_allclose(found.scores[0, 6], 0.5**0.6 * 0.9**0.4, rtol=1e-5)
    assert found.labels[0, 6] == 1


def test_yunet_cell() -> None:
    form = YunetForm(kind="yunet", strides=(16, 32))
    cells = [8, 2]
    outputs = [np.zeros((1, n, k), np.float32) for k in (1, 1, 4, 10) for n in cells]
    outputs[0][0, 5], outputs[2][0, 5], outputs[4][0, 5] = 0.5, 0.5, (0.5, 0, 0, np.log(2))
    found = decode_yunet(form, outputs, HW, 1)
    assert found.boxes.shape == (1, 10, 4)
    np.testing.assert_allclose(found.boxes[0, 5], [16, 0, 32, 32], atol=1e-4)
    assert found.scores[0, 5] == 0.5


@pytest.mark.parametrize(
    ("form", "shapes", "message"),
    [
        (YoloForm(kind="yolo"), [(1, 5, 10)], "has 6 class scores, but the form names 3 classes"),
        (YoloForm(kind="yolo"), [(1, 85, 2, 2)], "expected (B, N, 4 + C), the outputs are (1, 85, 2, 2)"),
        (YoloForm(kind="yolo", strides=(16,)), [(1, 5, 7)], "strides [16] have 8 cells, the output has 5"),
        (DetrForm(kind="detr", activation="softmax"), [(1, 5, 3), (1, 5, 4)], "has 2 class scores"),
        (FastestDetForm(kind="fastestdet"), [(1, 85, 2, 2)], "has 80 class scores, but the form names 3 classes"),
    ],
)
def test_what_does_not_fit_is_told(form: YoloForm, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        DECODERS[form.kind](form, [np.zeros(shape, np.float32) for shape in shapes], HW, 3)
    assert message in str(error.value)


def test_labels_that_the_form_does_not_name_are_told() -> None:
    outputs = [np.zeros((1, 1, 4), np.float32), np.ones((1, 1), np.float32), np.full((1, 1), 3)]
    with pytest.raises(RecipeError, match=facts("labels", "3 to 3", "3 classes", "first_label 0")):
        decode_boxes(BoxesForm(kind="boxes"), outputs, HW, 3)
