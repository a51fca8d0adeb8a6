"""The loop: schedules, journals, precision, and what ends a run."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import RandomEpoch, RandomSource, TinyDetector, make_batch, mean_score
from tiny_runs import QUICK, assert_same, start, state_of
from torch import nn
from torch._dynamo.utils import counters

from devices import bit_for_bit
from facts import facts
from sniper.errors import DataError, RecipeError, SniperError
from sniper.structures import Batch
from sniper.training.checkpoint import CheckpointMeta, load_weights
from sniper.training.loop import DivergedError, Evaluated, TrainConfig, train
from sniper.training.run import RunFolder


def test_short_runs_by_steps_minutes_and_part_of_an_epoch(tmp_path: Path) -> None:
    _, by_steps = start(tmp_path / "steps", TrainConfig(**QUICK, steps=5))
    assert (by_steps.step, by_steps.finished, by_steps.chips) == (5, True, 20)
    _, by_time = start(tmp_path / "minutes", TrainConfig(**QUICK, minutes=0.005))
    assert by_time.finished
    assert by_time.minutes >= 0.005
    _, part = start(tmp_path / "part", TrainConfig(**QUICK, epochs=0.5))
    assert part.step == 4  # of seven batches
    assert part.peak_memory_mb > 50


def test_an_epoch_ends_with_a_step_and_the_journal_has_every_interval(tmp_path: Path) -> None:
    _, result = start(tmp_path, TrainConfig(**QUICK, epochs=2, accumulate=4), evaluate=mean_score)
    assert result.step == math.ceil(7 / 4) + math.ceil(8 / 4)
    assert result.chips == 4 * 15
    rows = RunFolder(tmp_path).read_metrics()
    assert [r["step"] for r in rows if "loss" in r] == [2, 4]
    columns = "step epoch minutes learning_rate loss loss/objectness loss/box chips_per_s images_per_s"
    assert list(rows[0]) == columns.split()
    assert rows[-1]["eval/AP"] == pytest.approx(result.metrics["AP"], rel=1e-6)
    assert "finished at step 4" in (tmp_path / "log.txt").read_text()


@bit_for_bit
def test_the_last_smaller_group_of_an_epoch_trains_with_its_own_mean(tmp_path: Path) -> None:
    three = RandomSource(3, grows=False)
    short, result = start(tmp_path / "short", TrainConfig(**QUICK, epochs=2, accumulate=4), three)
    assert result.step == 2
    exact, _ = start(tmp_path / "exact", TrainConfig(**QUICK, epochs=2, accumulate=3), three)
    assert_same(dict(short.state_dict()), dict(exact.state_dict()))


def test_training_learns(tmp_path: Path) -> None:
    class Same(RandomSource):
        def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> RandomEpoch:
            return super().epoch(0, first_batch, rank, world_size)

    start(tmp_path, TrainConfig(**QUICK, steps=80), Same())
    losses = [r["loss"] for r in RunFolder(tmp_path).read_metrics()]
    assert losses[-1] < 0.6 * losses[0]


def test_bfloat16_on_the_cpu(tmp_path: Path) -> None:
    detector, result = start(tmp_path, TrainConfig(**QUICK, steps=6, precision="bf16", ema=0.99), evaluate=mean_score)
    assert result.finished
    assert all(p.dtype == torch.float32 for p in detector.parameters())
    exact, _ = start(tmp_path / "exact", TrainConfig(**QUICK, steps=6), evaluate=mean_score)
    assert not torch.equal(exact.head.weight, detector.head.weight), "bf16 was not used"
    torch.testing.assert_close(exact.head.weight, detector.head.weight, atol=0.02, rtol=0.1)


def test_half_precision_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="fp16, which needs a GPU"):
        start(tmp_path, TrainConfig(**QUICK, steps=1, precision="fp16", device="cpu"))


@bit_for_bit
def test_average_is_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    _, result = start(tmp_path, TrainConfig(**QUICK, steps=6, ema=0.9), evaluate=mean_score)
    average = TinyDetector()
    average.load_state_dict(load_weights(tmp_path / "last-ema.safetensors").weights)
    assert mean_score(average.eval()).metrics == pytest.approx(result.metrics)
    assert_same(
        load_weights(tmp_path / "last-ema.safetensors").weights, load_weights(tmp_path / "best.safetensors").weights
    )
    assert not torch.equal(load_weights(tmp_path / "last.safetensors").weights["head.weight"], average.head.weight)


def test_best_is_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    scores = iter([0.1, 0.3, math.nan, 0.2, 0.9])
    config = TrainConfig(**QUICK, epochs=5, evaluate_every=1, patience=2)
    _, result = start(tmp_path, config, evaluate=lambda detector: Evaluated({"AP": next(scores)}, (0.4, 0.5)))
    assert result.finished
    assert (result.best, result.best_step, result.step) == (0.3, 7 + 8, 7 + 8 + 9 + 10)
    best = load_weights(tmp_path / "best.safetensors").meta
    assert (best.step, best.epoch, best.metrics) == (15, 2.0, {"AP": 0.3})
    assert best.draw_scores == (0.4, 0.5)


def test_a_metric_that_two_images_cannot_tell_is_no_unknown_one(tmp_path: Path) -> None:
    """The rehearsal of two images often has no small object; training for AP_small ended there."""

    def rehearsal(detector: nn.Module) -> Evaluated:
        return mean_score(detector)._replace(untold=("AP_small",))

    def evaluate(detector: nn.Module) -> Evaluated:
        return Evaluated({**mean_score(detector).metrics, "AP_small": 0.25})

    config = TrainConfig(**QUICK, steps=2, best_metric="AP_small")
    _, result = start(tmp_path, config, evaluate=evaluate, rehearsal=rehearsal)
    assert (result.best, result.finished) == (0.25, True)


def test_unknown_best_metric(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"best_metric is 'F1'.*AP, AP50"):
        start(tmp_path, TrainConfig(**QUICK, steps=2, best_metric="F1"), evaluate=mean_score)


def test_a_loss_that_is_no_number_stops_and_keeps_the_former_checkpoint(tmp_path: Path) -> None:
    class Breaking(TinyDetector):
        def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
            losses = super().losses(batch)
            self.calls = getattr(self, "calls", 0) + 1
            return losses | {"box": losses["box"] / (0.0 if self.calls == 5 else 1.0)}

    config = TrainConfig(**QUICK, steps=20, checkpoint_every_steps=3)
    with pytest.raises(DivergedError, match=facts("step 5", "train.learning_rate", 0.05)):
        train(Breaking(), RandomSource(), config, RunFolder(tmp_path))
    assert state_of(tmp_path)["position"]["step"] == 3
    assert "stopped: the loss is not a number" in (tmp_path / "log.txt").read_text()


def test_losses_with_changing_names_are_refused(tmp_path: Path) -> None:
    class Moody(TinyDetector):
        def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
            losses = super().losses(batch)
            self.calls = getattr(self, "calls", 0) + 1
            return losses if self.calls < 3 else {"box": losses["box"]}

    with pytest.raises(SniperError, match="return the same names"):
        train(Moody(), RandomSource(), TrainConfig(**QUICK, steps=5), RunFolder(tmp_path))


def test_a_source_without_chips(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no chips to train on"):
        start(tmp_path, TrainConfig(**QUICK, steps=2), RandomSource(0, grows=False))


def test_chips_without_objects(tmp_path: Path) -> None:
    class Empty(RandomSource):
        def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "EmptyEpoch":
            return EmptyEpoch()

    class EmptyEpoch:
        num_batches = 3

        def __iter__(self) -> Iterator[Batch]:
            return iter([make_batch((b,), chips=1, objects=b % 2) for b in range(3)])

    _, result = start(tmp_path, TrainConfig(**QUICK, epochs=2), Empty())
    assert result.step == 6


def test_metadata_goes_into_checkpoints(tmp_path: Path) -> None:
    meta = CheckpointMeta(recipe={"train": {"steps": 2}}, class_names=("car", "bus"), class_ids=(3, 6))
    start(tmp_path, TrainConfig(**QUICK, steps=2), metadata=meta)
    kept = load_weights(tmp_path / "last.safetensors").meta
    assert (kept.recipe, kept.class_names, kept.class_ids, kept.step) == (
        {"train": {"steps": 2}},
        ("car", "bus"),
        (3, 6),
        2,
    )


@pytest.mark.slow
def test_compiled_networks(tmp_path: Path) -> None:
    plain, _ = start(tmp_path / "plain", TrainConfig(**QUICK, steps=3))
    counters.clear()
    try:
        compiled, _ = start(tmp_path / "compiled", TrainConfig(**QUICK, steps=3, compile=True), evaluate=mean_score)
    except torch._inductor.exc.InductorError as error:
        pytest.skip(f"no compiler here: {str(error).splitlines()[0]}")
    assert counters["stats"]["unique_graphs"] == 2, f"body and head; torch counted {dict(counters)}"
    torch.testing.assert_close(plain.head.bias, compiled.head.bias, atol=0.05, rtol=0.1)
    assert all(part._compiled_call_impl is None for part in compiled.children())
