"""How many of what a detector sees while it trains it gets right."""

import torch
from torch import Tensor


class CountedShare:
    """A share that is counted on the device: nothing is read from there before ``take``."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None  # (2,) int64 on the device: right ones, and all

    @torch.no_grad()
    def add(self, right: Tensor, counted: Tensor) -> None:
        """Count those of (N,) ``right`` that are ``counted``, both bool."""
        more = torch.stack(((right & counted).sum(), counted.sum()))
        before = self._counts
        self._counts = more if before is None or before.device != more.device else before + more

    def take(self) -> Tensor:
        """(2,) float64 on the CPU, as ``detectors.protocol.ReportsMetrics`` has it; the count starts anew."""
        counts, self._counts = self._counts, None
        return torch.zeros(2, dtype=torch.float64) if counts is None else counts.cpu().double()
