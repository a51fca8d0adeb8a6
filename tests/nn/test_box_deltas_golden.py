"""Box coding against the original's recorded numbers.

With inclusive corners w = x2 - x1 + 1 and centre = x1 + (w - 1) / 2. The half-open box (x2 + 1, y2 + 1) has the same w
and its centre lies half a pixel further for both boxes of a pair, so codes are equal and decoded boxes map back by - 1.
"""

import numpy as np
import torch

from recorded import Golden, delta_rounding, rounding
from sniper.nn.box_deltas import MAX_LOG_GROWTH, decode, encode

RTOL = 1e-12  # of golden/README.md, in double precision
INCLUSIVE = np.asarray([0, 0, 1, 1])


def half_open(boxes_inclusive: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(boxes_inclusive.astype(np.float64) + INCLUSIVE)


def test_recorded_codes(golden: Golden) -> None:
    data = golden.load("ops/boxes.npz")
    anchors = half_open(data["transform/ex"])
    target_deltas = encode(anchors, half_open(data["transform/gt"])).numpy()
    wh = (anchors[:, 2:] - anchors[:, :2]).numpy()
    shrink = wh / (wh + 1e-7)  # the original adds 1e-7 px to the sides that it divides by
    target_deltas = np.concatenate([target_deltas[:, :2] * shrink, target_deltas[:, 2:] + np.log(shrink)], axis=1)
    np.testing.assert_allclose(target_deltas, data["transform/targets"], rtol=RTOL, atol=RTOL)
    anchors, boxes = half_open(data["transform/ex32"]), half_open(data["transform/gt32"])
    recorded = data["transform/targets32"]
    errors = np.abs(encode(anchors, boxes).numpy() - recorded)
    np.testing.assert_array_less(errors, delta_rounding(4, anchors.numpy(), boxes.numpy(), recorded) + 1e-30)


def test_recorded_boxes(golden: Golden) -> None:
    data = golden.load("ops/boxes.npz")
    # The original takes the exponential in single precision: a few units in the last place of the largest corner.
    deltas = torch.from_numpy(data["pred/deltas"].astype(np.float64))
    assert deltas[:, 2:].max() < MAX_LOG_GROWTH  # the limit is the package's own
    decoded = decode(half_open(data["pred/boxes"]), deltas).numpy() - INCLUSIVE
    largest = data["pred/boxes"], data["pred/out"]
    np.testing.assert_allclose(decoded, data["pred/out"], rtol=0, atol=rounding(4, *largest))
    both = torch.from_numpy(data["pred/deltas_2cls"].astype(np.float64)).reshape(-1, 2, 4)
    boxes = half_open(data["pred/boxes"][: len(both)])[:, None]
    decoded = (decode(boxes, both).numpy() - INCLUSIVE).reshape(-1, 8)
    np.testing.assert_allclose(
        decoded, data["pred/out_2cls"], rtol=0, atol=rounding(4, *largest, data["pred/out_2cls"])
    )


def test_decode_undoes_encode() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 100, 2, generator=generator, dtype=torch.float64) * 100
    boxes = torch.cat([corner, corner + 1 + 50 * torch.rand(2, 100, 2, generator=generator)], dim=-1)
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(decode(boxes[0], encode(boxes[0], boxes[1], weights), weights), boxes[1])
    assert encode(boxes[0], boxes[0]).abs().max() == 0
