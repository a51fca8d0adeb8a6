"""Box coding against the original's recorded numbers.

With inclusive corners w = x2 - x1 + 1 and centre = x1 + (w - 1) / 2. The half-open box (x2 + 1, y2 + 1) has the same w
and its centre lies half a pixel further for both boxes of a pair, so codes are equal and decoded boxes map back by - 1.
"""

from pathlib import Path

import numpy as np
import torch

from sniper.nn.box_deltas import MAX_LOG_GROWTH, decode, encode

RTOL = 1e-12  # of golden/README.md, in double precision
INCLUSIVE = np.asarray([0, 0, 1, 1])


def half_open(boxes_inclusive: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(boxes_inclusive.astype(np.float64) + INCLUSIVE)


def test_recorded_codes(golden: Path) -> None:
    data = np.load(golden / "ops" / "boxes.npz")
    anchors = half_open(data["transform/ex"])
    target_deltas = encode(anchors, half_open(data["transform/gt"])).numpy()
    wh = (anchors[:, 2:] - anchors[:, :2]).numpy()
    shrink = wh / (wh + 1e-7)  # the original adds 1e-7 px to the sides that it divides by
    target_deltas = np.concatenate([target_deltas[:, :2] * shrink, target_deltas[:, 2:] + np.log(shrink)], axis=1)
    np.testing.assert_allclose(target_deltas, data["transform/targets"], rtol=RTOL, atol=RTOL)
    target_deltas = encode(half_open(data["transform/ex32"]), half_open(data["transform/gt32"]))
    np.testing.assert_allclose(target_deltas.numpy(), data["transform/targets32"], rtol=0, atol=1e-5)


def test_recorded_boxes(golden: Path) -> None:
    data = np.load(golden / "ops" / "boxes.npz")
    # The original takes the exponential in single precision.
    deltas = torch.from_numpy(data["pred/deltas"].astype(np.float64))
    assert deltas[:, 2:].max() < MAX_LOG_GROWTH  # the limit is the package's own
    decoded = decode(half_open(data["pred/boxes"]), deltas).numpy() - INCLUSIVE
    np.testing.assert_allclose(decoded, data["pred/out"], rtol=1e-6, atol=1e-4)
    both = torch.from_numpy(data["pred/deltas_2cls"].astype(np.float64)).reshape(-1, 2, 4)
    boxes = half_open(data["pred/boxes"][: len(both)])[:, None]
    decoded = (decode(boxes, both).numpy() - INCLUSIVE).reshape(-1, 8)
    np.testing.assert_allclose(decoded, data["pred/out_2cls"], rtol=1e-6, atol=1e-4)


def test_decode_undoes_encode() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 100, 2, generator=generator, dtype=torch.float64) * 100
    boxes = torch.cat([corner, corner + 1 + 50 * torch.rand(2, 100, 2, generator=generator)], dim=-1)
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(decode(boxes[0], encode(boxes[0], boxes[1], weights), weights), boxes[1])
    assert encode(boxes[0], boxes[0]).abs().max() == 0
