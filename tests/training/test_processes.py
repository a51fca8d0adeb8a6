"""Two processes are one with twice the batch."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from tiny import RandomSource, make_batch, mean_score
from two_processes import CONFIG, build

from facts import facts
from forked import Python
from sniper.errors import CheckpointError
from sniper.structures import Batch
from sniper.training.checkpoint import load_weights
from sniper.training.loop import train
from sniper.training.run import RunFolder


class BothRanks(RandomSource):
    """What the two processes see, as one batch."""

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "BothEpoch":
        assert world_size == 1
        return BothEpoch(epoch, first_batch, super().epoch(epoch, 0, 0, 1).num_batches)


class BothEpoch:
    def __init__(self, epoch: int, first: int, num_batches: int) -> None:
        self.number, self.first, self.num_batches = epoch, first, num_batches

    def __iter__(self) -> Iterator[Batch]:
        for index in range(self.first, self.num_batches):
            parts = [make_batch((self.number, rank, index)) for rank in (0, 1)]
            columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Batch)}
            yield Batch(**{name: torch.cat(both) for name, both in columns.items() if both[0] is not None})


@pytest.mark.slow
def test_two_processes_equal_one_with_both_batches(python: Python, tmp_path: Path) -> None:
    python.launch(2, Path(__file__).with_name("two_processes.py"), tmp_path)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [r["processes"] for r in ranks] == [2, 2]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["metrics"] == ranks[1]["metrics"]
    assert ranks[0]["buffers"] == ranks[1]["buffers"]
    assert len(ranks[0]["buffers"]) == 5
    for report in ranks:
        assert report["finished"] == [True, False, True]
        assert report["steps"] == [8, 6, 8]
        assert report["chips"] == 2 * 4 * (7 + 8)
        assert report["pieces_equal_whole"]
        assert report["short_group_is_a_mean"]

    detector = build()
    train(detector, BothRanks(), CONFIG, RunFolder(tmp_path / "one"), evaluate=mean_score)
    two = load_weights(tmp_path / "whole" / "last.safetensors").weights
    for name, weight in detector.state_dict().items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-6, msg=name)
    one_losses, two_losses = (
        [row["loss"] for row in RunFolder(tmp_path / name).read_metrics() if "loss" in row] for name in ("one", "whole")
    )
    assert two_losses == pytest.approx(one_losses, rel=1e-5)

    with pytest.raises(CheckpointError, match=facts("2 processes", "by 1")):
        train(build(), BothRanks(), CONFIG, RunFolder(tmp_path / "whole"), resume=True)
