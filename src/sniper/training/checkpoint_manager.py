"""What a run keeps on disk: the resumable state, and the last and best weights."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sniper.errors import CheckpointError, RecipeError, StorageError
from sniper.nn.weights import first_not_finite
from sniper.renamed import with_present_names
from sniper.training.checkpoint import CheckpointMeta, load_state, load_weights, save_state, save_weights
from sniper.training.config import TrainConfig
from sniper.training.meter import DivergedError, advice
from sniper.training.position import Evaluated, Position
from sniper.training.reserve import DiskReserve
from sniper.training.run import RunFolder

logger = logging.getLogger("sniper")

_MEMORIES = {"sgd": 1, "adamw": 2}  # numbers that an optimiser keeps of each weight
_OVERHEAD = 64 * 2**10  # bytes of a file beside its tensors


class CheckpointManager:
    """Saves and restores a run. Only the main process writes; every process reads."""

    def __init__(
        self,
        detector: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        accelerator: Accelerator,
        config: TrainConfig,
        run: RunFolder,
        metadata: CheckpointMeta,
    ) -> None:
        self._detector = detector
        self._optimizer = optimizer
        self._average = average
        self._evaluated: nn.Module = detector if average is None else average.module
        self._accelerator = accelerator
        self._config = config
        self._run = run
        self._metadata = metadata
        self._reserve: DiskReserve | None = None
        self._sizes: dict[Path, int] = {}  # bytes expected of each file that this run saves

    @contextmanager
    def reserving(self, *, best: bool) -> Iterator[None]:
        """While entered, the disk has room for every checkpoint to come: it is held, and spent while one is written.

        Args:
            best: whether there will be best weights.

        Raises:
            StorageError: there is no room for the checkpoints of this run.
        """
        if not self._accelerator.is_main_process:
            yield
            return
        sizes = self._expected_sizes(best=best)
        with DiskReserve(self._run.path) as reserve:
            if not reserve.hold(_still_needed(sizes)):
                raise StorageError(
                    f"{self._run.path}: the checkpoints of this run need about {_still_needed(sizes) / 1e6:.1f} MB and "
                    "the disk has less; free space or choose another folder"
                )
            self._reserve, self._sizes = reserve, sizes
            try:
                yield
            finally:
                self._reserve = None

    @contextmanager
    def saved_if_full(self, at: Position) -> Iterator[None]:
        """If a full disk ends what is done while this is entered, the training is saved in the room that is reserved.

        Raises:
            StorageError: as it came, with what was saved.
        """
        try:
            yield
        except StorageError as error:
            self.save(at)
            raise StorageError(
                f"{error}; the training is saved at step {at.step}: sniper train --resume {self._run.path}"
            ) from error

    def save(self, at: Position) -> Position:
        """Write state and last weights; the position with the time of saving noted.

        Raises:
            StorageError: the disk is full; the former files stay.
            DivergedError: a weight is not finite, so that the former checkpoint is the better one.
        """
        broken = first_not_finite(self._detector, self._detector.state_dict())
        if broken is not None:
            raise DivergedError(f"{broken} is not a finite number after step {at.step}; {advice(self._config)}")
        at = replace(at, saved_minutes=at.minutes)
        if not self._accelerator.is_main_process:
            return at
        scaler = self._accelerator.scaler
        state = {
            "model": self._detector.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "position": asdict(at),
            "processes": self._accelerator.num_processes,
            "config": self._config.model_dump(mode="json"),
        }
        with self._reserve_spent():
            save_state(self._run.state, state)
            for path, module in self._weights().items():
                save_weights(path, module.state_dict(), self._metadata_at(at))
        return at

    def score(self, evaluated: Evaluated) -> float:
        """The number of an evaluation by which weights are the best; 0 where there is nothing that it could measure.

        Raises:
            RecipeError: ``best_metric`` is not among its metrics.
        """
        name, metrics = self._config.best_metric, evaluated.metrics
        if name not in metrics and name not in evaluated.untold:
            raise RecipeError(
                f"train.best_metric is {name!r}, which the evaluation does not give; "
                f"choose one of {', '.join([*metrics, *evaluated.untold])}"
            )
        return metrics.get(name, 0.0)

    def evaluated(self, at: Position, evaluated: Evaluated) -> Position:
        """Note an evaluation, and keep the evaluated weights if they are the best so far.

        Raises:
            RecipeError: ``best_metric`` is not among ``metrics``.
        """
        after = at.after_evaluation(evaluated, self.score(evaluated))
        if after.best_step == at.step and after.evaluations_since_best == 0 and self._accelerator.is_main_process:
            with self._reserve_spent():
                save_weights(self._run.best, self._evaluated.state_dict(), self._metadata_at(after))
        return after

    def restore(self) -> Position:
        """Read the state into detector, optimiser, average and loss scale.

        Raises:
            CheckpointError: it is damaged, or of another detector, optimiser or number of processes.
        """
        path = self._run.state
        state = load_state(path, self._detector)
        processes = self._accelerator.num_processes
        if state["processes"] != processes:
            raise CheckpointError(
                f"{path} was written by {state['processes']} processes and cannot be continued exactly by {processes}; "
                f"launch {state['processes']}, or start a new run from {self._run.last.name}"
            )
        self._warn_of_changes(with_present_names({"train": state["config"]}).settings["train"])
        self._detector.load_state_dict(state["model"])
        try:
            self._optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} holds the memory of another optimiser ({error}); resume with the run's own recipe"
            ) from error
        if self._average is not None and state["average"] is not None:
            self._average.load_state_dict(state["average"])
        if self._accelerator.scaler is not None and state["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        return Position(**state["position"])

    def _weights(self) -> dict[Path, nn.Module]:
        """The files of weights that are written with the state, and what they hold."""
        averaged = {} if self._average is None else {self._run.last_ema: self._average.module}
        return {self._run.last: self._detector, **averaged}

    def complete(self, at: Position) -> None:
        """Write the weights of a restored run that are not those of its state: a kill came between the two."""
        if not self._accelerator.is_main_process:
            return
        metadata, weights = self._metadata_at(at), self._weights()
        if at.best is not None and at.best_step == at.step:
            weights[self._run.best] = self._evaluated
        for path, module in weights.items():
            try:
                written = load_weights(path).meta
            except CheckpointError:
                written = None
            if written is None or (written.step, written.metrics) != (metadata.step, metadata.metrics):
                with self._reserve_spent():
                    save_weights(path, module.state_dict(), metadata)

    @contextmanager
    def _reserve_spent(self) -> Iterator[None]:
        """While entered, checkpoints may take the room that is held for them."""
        if self._reserve is None:
            yield
            return
        self._reserve.release()
        yield
        needed = _still_needed(self._sizes)
        if not self._reserve.hold(needed):
            logger.warning(
                "%s: the disk is nearly full: the next checkpoint needs about %.1f MB; free space",
                self._run.path,
                needed / 1e6,
            )

    def _expected_sizes(self, *, best: bool) -> dict[Path, int]:
        """Bytes of each file that this run saves."""
        weights = {path: _size(module) + _OVERHEAD for path, module in self._weights().items()}
        learned = sum(one.nbytes for one in self._detector.parameters() if one.requires_grad)
        state = sum(weights.values()) + _MEMORIES[self._config.optimizer] * learned + _OVERHEAD
        chosen = {self._run.best: _size(self._evaluated) + _OVERHEAD} if best else {}
        return {self._run.state: state, **weights, **chosen}

    def _warn_of_changes(self, former: dict[str, object]) -> None:
        now = self._config.model_dump(mode="json")
        if former.get("optimizer") != now["optimizer"]:
            raise CheckpointError(
                f"{self._run.state} was trained with {former.get('optimizer')} and cannot continue with "
                f"{now['optimizer']}; resume with the run's own recipe"
            )
        changed = [f"{name} {former.get(name)} -> {value}" for name, value in now.items() if former.get(name) != value]
        if changed:
            logger.warning(
                "resuming with %d changed settings, no longer the same run: %s", len(changed), ", ".join(changed)
            )

    def _metadata_at(self, at: Position) -> CheckpointMeta:
        told = {"metrics": dict(at.metrics), "draw_scores": at.draw_scores}
        return self._metadata.model_copy(update={"step": at.step, "epoch": at.epochs, **told})


def _size(module: nn.Module) -> int:
    return sum(one.nbytes for one in module.state_dict().values())


def _still_needed(sizes: dict[Path, int]) -> int:
    """Bytes for the files that are not there yet, and for the largest one beside the one that it replaces."""
    there = {path: path.stat().st_size for path in sizes if path.is_file()}
    return sum(size for path, size in sizes.items() if path not in there) + max((sizes | there).values())
