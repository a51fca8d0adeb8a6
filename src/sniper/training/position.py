"""Where a run is, and what is due there."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from sniper.training.config import TrainConfig

_END = 1 - 1e-9  # shares of a run are quotients of floats


class Evaluated(NamedTuple):
    """What an evaluation tells training."""

    metrics: dict[str, float]
    draw_scores: tuple[float, ...] = ()  # (C,) from which on detections of each class are drawn; empty: not told
    untold: tuple[str, ...] = ()  # names of other metrics, for which there is nothing to find


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run is. With the weights and the optimiser's memory this is all that resuming needs.

    Random numbers need no state: they are seeded for each batch from seed, process, epoch and batch.
    """

    step: int = 0  # updates of the weights done
    epoch: int = 0
    batch: int = 0  # next batch of the epoch, for one process
    num_batches: int = 1  # of the epoch, for one process
    chips: int = 0  # seen by all processes
    minutes: float = 0.0  # of training; see ``TrainingClock``
    saved_minutes: float = 0.0
    evaluation_owed: bool = False  # saved before the evaluation that is due here
    evaluated_step: int = -1
    metrics: dict[str, float] = field(default_factory=dict)  # of the latest evaluation
    draw_scores: tuple[float, ...] = ()  # of the latest evaluation
    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0

    @property
    def epochs(self) -> float:
        """Epochs done, with the fraction of the current one."""
        return self.epoch + self.batch / self.num_batches

    def share(self, config: TrainConfig) -> float:
        """Share of the run that is done, in [0, 1]."""
        if config.steps is not None:
            done = self.step / config.steps
        elif config.minutes is not None:
            done = self.minutes / config.minutes
        else:
            assert config.epochs is not None
            done = self.epochs / config.epochs
        return 1.0 if done >= _END else done

    def after_step(self, epoch: int, next_batch: int, num_batches: int, chips: int, minutes: float) -> Self:
        """The position after one more step, whose last batch was ``next_batch - 1`` of ``epoch``."""
        whole = next_batch >= num_batches
        return replace(
            self,
            step=self.step + 1,
            epoch=epoch + whole,
            batch=0 if whole else next_batch,
            num_batches=num_batches,
            chips=self.chips + chips,
            minutes=minutes,
        )

    def after_evaluation(self, evaluated: Evaluated, score: float) -> Self:
        """The position after an evaluation. A score that is not a number is never better."""
        better = score == score and (self.best is None or score > self.best)
        return replace(
            self,
            evaluation_owed=False,
            evaluated_step=self.step,
            metrics=evaluated.metrics,
            draw_scores=evaluated.draw_scores,
            best=score if better else self.best,
            best_step=self.step if better else self.best_step,
            evaluations_since_best=0 if better else self.evaluations_since_best + 1,
        )

    def finished(self, config: TrainConfig) -> bool:
        """Whether the run is at its end, or has waited long enough for a new best."""
        return self.share(config) >= 1 or (
            config.patience is not None and self.evaluations_since_best >= config.patience
        )

    def evaluation_due(self, before: Self, config: TrainConfig) -> bool:
        """Whether a multiple of ``evaluate_every`` epochs was passed since ``before``, or the run has ended."""
        if self.share(config) >= 1:
            return True
        every = config.evaluate_every
        return every is not None and int(self.epochs / every + 1e-9) > int(before.epochs / every + 1e-9)

    def checkpoint_due(self, config: TrainConfig) -> bool:
        """Whether enough steps or minutes went by, or there was an evaluation."""
        steps, minutes = config.checkpoint_every_steps, config.checkpoint_every_minutes
        return (
            self.evaluated_step == self.step
            or (steps is not None and self.step % steps == 0)
            or (minutes is not None and self.minutes - self.saved_minutes >= minutes)
        )
