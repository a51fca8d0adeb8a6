"""Where the time of a training step goes: some steps after warm-up, as a trace and as shares."""

import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function
from torch.utils.hooks import RemovableHandle

from sniper.files import replacing

logger = logging.getLogger("sniper")

WARM_UP = 3  # steps before the profiled ones
STEPS = 5
SPANS = ("waiting", "losses", "backward", "update")  # of a step, in order
_FORWARD = "forward: "  # begins the names of spans inside "losses"

Step = TypeVar("Step")


class StepShares(NamedTuple):
    """Shares of a step that add up to 1, and how long it took. On a GPU, its work is waited for after each part.

    Parts that run compiled cannot be told from what is around them: ``forward`` is then None, and all is in
    ``targets_and_losses``.
    """

    steps: int  # that were profiled
    step_s: float
    waiting: float  # for chips
    forward: float | None  # in the networks that the detector is made of
    targets_and_losses: float  # in the rest of its losses
    backward: float
    update: float
    other: float

    def sentence(self) -> str:
        """The shares in words."""
        losses = {"forward": self.forward, "targets and losses": self.targets_and_losses}
        if self.forward is None:
            losses = {"forward, targets and losses": self.targets_and_losses}
        shares = {"waiting for chips": self.waiting, **losses, "backward": self.backward, "update": self.update}
        parts = ", ".join(f"{name} {share:.0%}" for name, share in {**shares, "other": self.other}.items())
        return f"a step took {self.step_s:.3g} s ({self.steps} profiled): {parts}"


class StepProfile:
    """Named spans of a step. Without a file for the trace they do nothing.

    The parts of the detector (its children) are spans of their own while steps are profiled; what they take is the
    forward pass, and the rest of ``losses`` is targets and losses.
    """

    def __init__(self, detector: nn.Module, device: torch.device, trace: Path | None) -> None:
        self.shares: StepShares | None = None
        self._detector, self._device, self._trace = detector, device, trace
        self._steps = 0  # that are over
        self._began = 0.0
        self._total = 0.0
        self._spent: defaultdict[str, float] = defaultdict(float)  # seconds by span
        self._compiled = False  # the detector's parts are
        self._hooks: list[RemovableHandle] = []
        self._profiler: torch.profiler.profile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profiler is not None:  # the run ended before all steps were there
            self._stop()
        if self._trace is not None and self.shares is None and error is None:
            logger.warning("nothing is profiled: the run ended within the %d steps of warm-up", WARM_UP)

    def waiting(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The steps; profiled ones count from when they are asked for."""
        upcoming = iter(steps)
        while True:
            self._began, before = time.perf_counter(), self._spent["waiting"]
            with self.span("waiting"):
                more = list(islice(upcoming, 1))
            if not more:
                self._spent["waiting"] = before  # the end of an epoch is no part of a step
                return
            yield from more

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """What runs inside counts as ``name`` and shows in the trace under it."""
        if self._profiler is None:
            yield
            return
        began = time.perf_counter()
        with record_function(name):
            yield
            self._wait_for_device()
        self._spent[name] += time.perf_counter() - began

    def step_done(self) -> None:
        """To be called at the end of each step."""
        if self._trace is None:
            return
        self._steps += 1
        if self._profiler is not None:
            self._total += time.perf_counter() - self._began
            if self._steps == WARM_UP + STEPS:
                self._stop()
        elif self._steps == WARM_UP:
            self._start()

    def _start(self) -> None:
        self._wait_for_device()
        parts = dict(self._detector.named_children())
        self._compiled = any(part._compiled_call_impl is not None for part in parts.values())
        if not self._compiled:
            for name, part in parts.items():
                self._hooks += _spanned(self, name, part)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines on standard error
        on_gpu = [ProfilerActivity.CUDA] if self._device.type == "cuda" else []
        self._profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU, *on_gpu])
        self._profiler.start()

    def _stop(self) -> None:
        assert self._profiler is not None
        assert self._trace is not None
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        for hook in self._hooks:
            hook.remove()
        steps = self._steps - WARM_UP
        if not steps or not self._total:
            return
        with replacing(self._trace) as partial:
            profiler.export_chrome_trace(str(partial))
        self.shares = self._shares(steps)
        logger.info("%s; trace: %s", self.shares.sentence(), self._trace)

    def _shares(self, steps: int) -> StepShares:
        spent = {name: seconds / self._total for name, seconds in self._spent.items()}
        waiting, losses, backward, update = (spent.get(name, 0.0) for name in SPANS)
        forward = sum(share for name, share in spent.items() if name.startswith(_FORWARD))
        return StepShares(
            steps,
            self._total / steps,
            waiting=waiting,
            forward=None if self._compiled else forward,
            targets_and_losses=losses - forward,
            backward=backward,
            update=update,
            other=max(1 - waiting - losses - backward - update, 0.0),
        )

    def _wait_for_device(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


def _spanned(profile: StepProfile, name: str, part: nn.Module) -> list[RemovableHandle]:
    """Hooks that make each call of ``part`` a span."""
    entered: list[Any] = []

    def enter(*_: object) -> None:
        entered.append(profile.span(f"{_FORWARD}{name}"))
        entered[-1].__enter__()

    def leave(*_: object) -> None:
        entered.pop().__exit__(None, None, None)

    return [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
