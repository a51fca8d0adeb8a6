"""What the check of a written file calls agreement."""

from typing import Any

import numpy as np
import pytest

from sniper.to_onnx.parity import EXACT, parity

ROWS = 40


@pytest.fixture
def wanted() -> dict[str, Any]:
    """Two images with 40 and 25 detections in 50 slots, proposals, and a focus map."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 300, (2, 50, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 60, (2, 50, 2))], axis=2).astype(np.float32)
    scores = -np.sort(-random.uniform(0.01, 1, (2, 50)).astype(np.float32), axis=1)
    labels = random.integers(0, 3, (2, 50))
    return {
        "boxes": boxes, "scores": scores, "labels": labels, "counts": np.array([ROWS, 25]),
        "proposal_boxes": boxes.copy(), "proposal_scores": scores.copy(), "proposal_counts": np.array([50, 50]),
        "focus": random.uniform(0, 1, (2, 4, 5)).astype(np.float32),
    }  # fmt: skip


def _changed(wanted: dict[str, Any], name: str, rows: slice, by: float) -> dict[str, Any]:
    found = {key: value.copy() for key, value in wanted.items()}
    found[name][0, rows] += by
    return found


def test_rounding_and_rows_that_change_places_agree(wanted) -> None:
    assert parity(wanted, wanted, EXACT) == (0.0, 0, 2 * (ROWS + 25 + 100))
    found = {key: value.copy() for key, value in wanted.items()}
    order = np.random.default_rng(1).permutation(ROWS)
    for name in ("boxes", "scores", "labels"):
        found[name][0, :ROWS] = found[name][0, order]
    found["scores"] += np.float32(2e-5)
    found["boxes"] += np.float32(0.02)
    found["boxes"][:, 40:] = -1e6  # beyond the counts nothing is said
    agreed = parity(wanted, found | {"proposal_boxes": wanted["proposal_boxes"]}, EXACT)
    assert agreed.score_difference == pytest.approx(2e-5, abs=1e-6)
    assert agreed.apart == 0
    assert agreed.within(EXACT)


@pytest.mark.parametrize(
    ("name", "rows", "by"),
    [
        ("scores", slice(7, 8), 0.2),
        ("boxes", slice(0, 8), 1.0),
        ("labels", slice(0, 8), 1),
        ("counts", slice(None), -12),
        ("proposal_boxes", slice(0, 8), 3.0),
        ("focus", slice(2, 3), 0.01),
    ],
)
def test_what_a_wrong_operator_does_is_seen(wanted, name, rows, by) -> None:
    found = wanted | {"counts": wanted["counts"] - 12} if name == "counts" else _changed(wanted, name, rows, by)
    assert not parity(wanted, found, EXACT).within(EXACT)


def test_one_detection_that_a_limit_decides_differently_is_forgiven(wanted) -> None:
    assert parity(wanted, wanted | {"counts": wanted["counts"] - [1, 0]}, EXACT).within(EXACT)


def test_nothing_found_agrees_with_nothing_and_not_with_much(wanted) -> None:
    nothing = wanted | {"counts": np.array([0, 0]), "proposal_counts": np.array([0, 0])}
    assert parity(nothing, nothing, EXACT).within(EXACT)
    assert not parity(wanted, nothing, EXACT).within(EXACT)
