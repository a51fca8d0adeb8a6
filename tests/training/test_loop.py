"""The loop: schedules, journals, precision, interruption, and resuming bit for bit."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import RandomEpoch, RandomSource, TinyDetector, make_batch, mean_score
from torch import nn
from torch._dynamo.utils import counters

from devices import bit_for_bit
from facts import facts
from sniper.errors import CheckpointError, DataError, RecipeError, SniperError
from sniper.structures import Batch
from sniper.training.checkpoint import CheckpointMeta, load_weights
from sniper.training.loop import DivergedError, Evaluated, TrainConfig, TrainResult, train
from sniper.training.run import RunFolder

QUICK = {"warmup_steps": 3, "log_every": 2, "tensorboard": False, "learning_rate": 0.05}


def start(
    folder: Path, config: TrainConfig, source: object = None, **given: object
) -> tuple[TinyDetector, TrainResult]:
    torch.manual_seed(1)
    detector = TinyDetector()
    result = train(detector, source or RandomSource(), config, RunFolder(folder), **given)
    return detector, result


def state_of(folder: Path) -> dict:
    return torch.load(folder / "state.pt", weights_only=True)


def assert_same(a: object, b: object, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


class Stopping(RandomSource):
    """Sends this process a signal while one batch is being fetched."""

    def __init__(self, at: tuple[int, int], number: signal.Signals) -> None:
        super().__init__()
        self.at, self.number = at, number

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "StoppingEpoch":
        return StoppingEpoch(self, super().epoch(epoch, first_batch, rank, world_size), epoch, first_batch)


class StoppingEpoch:
    def __init__(self, source: Stopping, inner: RandomEpoch, epoch: int, first: int) -> None:
        self.source, self.inner, self.number, self.first = source, inner, epoch, first
        self.num_batches = inner.num_batches

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self.inner, self.first):
            if (self.number, index) == self.source.at:
                signal.raise_signal(self.source.number)
            yield batch


SETTINGS = {
    "sgd, drops, average, two batches a step": {"optimizer": "sgd", "ema": 0.9, "accumulate": 2, "clip_norm": 1.0},
    "adamw, cosine": {"optimizer": "adamw", "schedule": "cosine", "learning_rate": 0.003},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_pieces_equal_one(tmp_path: Path, name: str, number: signal.Signals) -> None:
    config = TrainConfig(**{**QUICK, **SETTINGS[name]}, epochs=3, evaluate_every=1)
    start(tmp_path / "one", config, evaluate=mean_score)
    _, first = start(tmp_path / "two", config, Stopping((1, 4), number), evaluate=mean_score)
    assert not first.finished
    assert 1 < first.epochs < 2
    assert first.epochs % 1 != 0, "must stop in the middle of an epoch"
    _, second = start(tmp_path / "two", config, evaluate=mean_score, resume=True)
    assert second.finished

    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    for state in (one, two):
        for clock in ("minutes", "saved_minutes"):
            state["position"].pop(clock)
    assert_same(one, two)
    for weights in ("last", "best", *(["last-ema"] if config.ema else [])):
        a, b = (load_weights(tmp_path / part / f"{weights}.safetensors") for part in ("one", "two"))
        assert_same(a.weights, b.weights, weights)
        assert a.meta == b.meta
    rows = [RunFolder(tmp_path / part).read_metrics() for part in ("one", "two")]
    evaluations = [[(r["step"], r["eval/AP"]) for r in part if "eval/AP" in r] for part in rows]
    assert evaluations[0] == evaluations[1]
    assert len(evaluations[0]) == 3
    losses = [{r["step"]: r["loss"] for r in part if "loss" in r} for part in rows]
    stopped_rows = {first.step, *range(first.step, first.step + config.log_every)}
    assert all(losses[1][step] == losses[0][step] for step in losses[0] if step not in stopped_rows)
    assert len([r for r in rows[1] if "loss" in r]) == len(losses[1]), "no step twice"


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


class Slow:
    """A preparation of epochs that takes time, as looking for negatives does."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.epochs = seconds, []

    def __call__(self, epoch: int, detector: nn.Module) -> None:
        self.epochs.append(epoch)
        torch.rand(3)  # it may draw random numbers
        time.sleep(self.seconds)


@bit_for_bit
def test_what_comes_before_an_epoch_is_seen_once_an_epoch_and_takes_no_time_of_training(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, epochs=3)
    before = Slow(1.0)
    began = time.monotonic()
    prepared, result = start(tmp_path / "prepared", config, before_epoch=before)
    assert before.epochs == [0, 1, 2]
    assert time.monotonic() - began - 60 * result.minutes > 3.0
    rows = RunFolder(tmp_path / "prepared").read_metrics()
    assert rows[-1]["minutes"] == pytest.approx(result.minutes, abs=1e-6)
    seconds = [60 * (row["minutes"] - at) for row, at in zip(rows, [0, *(r["minutes"] for r in rows)], strict=False)]
    chips = sum(row["chips_per_s"] * each for row, each in zip(rows, seconds, strict=True))
    assert chips == pytest.approx(4 * 24, rel=0.1), "chips/s are those of the seconds of training"
    plain, _ = start(tmp_path / "plain", config)
    assert_same(dict(plain.state_dict()), dict(prepared.state_dict()))

    again = Slow(0.0)
    start(tmp_path / "prepared", config, before_epoch=again, resume=True)
    assert again.epochs == [], "nothing is left to train"
    _, first = start(tmp_path / "two", config, Stopping((1, 4), signal.SIGINT), before_epoch=again)
    assert 1 < first.epochs < 2
    _, second = start(tmp_path / "two", config, before_epoch=again, resume=True)
    assert second.finished
    assert again.epochs == [0, 1, 1, 2], "resuming prepares the epoch in which it goes on"


def test_a_run_of_minutes_spends_them_on_training(tmp_path: Path) -> None:
    before = Slow(0.6)
    _, result = start(tmp_path, TrainConfig(**QUICK, minutes=0.02), RandomSource(3, grows=False), before_epoch=before)
    assert result.finished
    assert result.epochs > 1, "one preparation alone takes half of the 1.2 seconds"
    assert 0.02 <= result.minutes < 0.03


@bit_for_bit
def test_the_evaluation_is_rehearsed_before_the_first_step_of_a_new_run(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, epochs=2, ema=0.9)
    seen: list[tuple[bool, int]] = []

    def rehearsal(detector: nn.Module) -> Evaluated:
        seen.append((detector.training, len(RunFolder(tmp_path / "run").read_metrics())))
        time.sleep(1.0)
        return mean_score(detector)

    detector, result = start(tmp_path / "run", config, evaluate=mean_score, rehearsal=rehearsal)
    assert seen == [(False, 0)]
    assert result.minutes < 0.9 / 60
    plain, _ = start(tmp_path / "plain", config, evaluate=mean_score)
    assert_same(dict(plain.state_dict()), dict(detector.state_dict()))
    start(tmp_path / "run", config.model_copy(update={"epochs": 3.0}), resume=True, rehearsal=rehearsal)
    assert len(seen) == 1

    def broken(detector: nn.Module) -> Evaluated:
        raise DataError("no such image")

    with pytest.raises(DataError, match="no such image"):
        start(tmp_path / "broken", config, Counted(), evaluate=mean_score, rehearsal=broken)
    other = TrainConfig(**QUICK, epochs=9, best_metric="F1")
    with pytest.raises(RecipeError, match=r"best_metric is 'F1'.*AP, AP50"):
        start(tmp_path / "metric", other, Counted(), evaluate=mean_score, rehearsal=mean_score)
    assert Counted.asked == 0


class Counted(RandomSource):
    asked = 0

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> RandomEpoch:
        Counted.asked += 1
        return super().epoch(epoch, first_batch, rank, world_size)


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


def test_loader_that_dies_of_the_same_signal_loses_nothing(tmp_path: Path) -> None:
    class Dying(Stopping):
        def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> "DyingEpoch":
            return DyingEpoch(self, RandomSource.epoch(self, epoch, first_batch, rank, world_size), epoch, first_batch)

    class DyingEpoch(StoppingEpoch):
        def __iter__(self) -> Iterator[Batch]:
            for index, batch in enumerate(self.inner, self.first):
                if (self.number, index) == self.source.at:
                    signal.raise_signal(self.source.number)
                    raise RuntimeError("DataLoader worker exited unexpectedly")
                yield batch

    config = TrainConfig(**QUICK, epochs=2)
    whole, _ = start(tmp_path / "one", config)
    _, first = start(tmp_path / "two", config, Dying((0, 5), signal.SIGINT))
    assert (first.step, first.finished) == (5, False)
    pieces, _ = start(tmp_path / "two", config, resume=True)
    assert_same(dict(whole.state_dict()), dict(pieces.state_dict()))


def test_handlers_are_put_back_and_other_threads_train_too(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    done: list[TrainResult] = []
    config = TrainConfig(**QUICK, steps=2)
    thread = threading.Thread(target=lambda: done.append(start(tmp_path, config)[1]))
    thread.start()
    thread.join()
    assert done[0].finished
    start(tmp_path / "main", config)
    assert signal.getsignal(signal.SIGINT) is before


def test_resuming_a_run_without_checkpoint_starts_it(tmp_path: Path) -> None:
    _, result = start(tmp_path, TrainConfig(**QUICK, steps=3), resume=True)
    assert result.step == 3


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    config = TrainConfig(**QUICK, steps=3)
    once, _ = start(tmp_path, config, evaluate=mean_score)
    metrics = (tmp_path / "metrics.csv").read_text()
    again, result = start(tmp_path, config, evaluate=mean_score, resume=True)
    assert result.finished
    assert_same(dict(once.state_dict()), dict(again.state_dict()))
    assert (tmp_path / "metrics.csv").read_text() == metrics


def test_resuming_with_other_settings_warns_or_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(tmp_path, TrainConfig(**QUICK, steps=3))
    _, longer = start(tmp_path, TrainConfig(**QUICK, steps=5), resume=True)
    assert longer.step == 5
    assert "1 changed settings, no longer the same run: steps 3 -> 5" in caplog.text
    with pytest.raises(CheckpointError, match=facts("sgd", "adamw")):
        start(tmp_path, TrainConfig(**QUICK, steps=9, optimizer="adamw"), resume=True)


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
