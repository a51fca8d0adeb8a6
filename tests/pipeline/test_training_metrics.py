"""What a detector says of itself while it trains comes into the metrics log, beside the losses and never among them."""

import csv
import logging
from pathlib import Path

import pytest
from torch import Tensor

from rectangle_set import TINY, make_set
from sniper.detectors.original.network import OriginalConfig, build_original
from sniper.detectors.protocol import ReportsMetrics
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.pipeline.train import train

NAME = "metric/focus_recall_at_10"


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").open()))


def test_a_focus_branch_tells_its_recall(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make_set(tmp_path / "set")
    overrides = [*TINY, f"data.train={data}", "train.steps=6", "train.log_every=2", "train.tensorboard=true"]
    with caplog.at_level(logging.INFO, "sniper"):
        focusing = train("mobilenetv2", overrides=[*overrides, "model.focus=true"], root=tmp_path)
    rows = rows_of(focusing.folder)
    assert len(rows) == 3
    assert all(0 <= float(row[NAME]) <= 1 for row in rows)
    for row in rows:
        losses = [float(value) for name, value in row.items() if name.startswith("loss/")]
        assert float(row["loss"]) == pytest.approx(sum(losses), rel=1e-5)
    assert "focus_recall_at_10 0." in caplog.text
    events = b"".join(path.read_bytes() for path in (focusing.folder / "tensorboard").iterdir())
    assert NAME.encode() in events
    plain = train("mobilenetv2", overrides=[*overrides, "train.tensorboard=false"], root=tmp_path)
    assert not any(name.startswith("metric/") for name in rows_of(plain.folder)[0])


def test_reference_and_original_detectors_are_measured() -> None:
    reference = SniperConfig(backbone="timm/test_resnet", weights=None, focus=True)
    original = OriginalConfig(network="sniper_mobilenetv2", focus=True)
    for detector in (build_sniper(reference, 2), build_original(original, 2)):
        assert isinstance(detector, ReportsMetrics)
        found: dict[str, Tensor] = detector.training_metrics()
        assert {name: share.tolist() for name, share in found.items()} == {"focus_recall_at_10": [0, 0]}
    plain = build_sniper(reference.model_copy(update={"focus": False}), 2)
    assert plain.training_metrics() == {}
