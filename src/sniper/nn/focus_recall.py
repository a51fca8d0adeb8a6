"""How good a focus branch is while it trains: of the cells with small objects, how many are among its best ones."""

from typing import ClassVar

import torch
from torch import Tensor

from sniper.nn.focus import focus_logits


class FocusRecall:
    """Share of the focus cells among the best ``fraction`` of all cells seen.

    Cells are counted by their logit in narrow bins, so that memory stays the same however many there are and nothing is
    read from the device before ``take``. Cells of one bin are taken in equal parts. Padding is no cell.
    """

    BINS: ClassVar[int] = 4096
    LIMIT: ClassVar[float] = 20.0  # logits beyond are as good as this

    def __init__(self, fraction: float = 0.1) -> None:
        self.fraction = fraction
        self._counts: Tensor | None = None  # (2 * BINS,) int32 on the device: cells without focus, then with

    @property
    def name(self) -> str:
        """``focus_recall_at_10`` for a tenth."""
        return f"focus_recall_at_{100 * self.fraction:g}"

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, valid_hw: Tensor, stride: int) -> None:
        """Count the cells of (B, 1 or 2, H, W) ``logits``.

        ``labels`` (B, H, W) are 1 for focus, -1 for neither, 0 for none; ``valid_hw`` (B, 2) px show the picture.
        """
        if self._counts is None or self._counts.device != logits.device:
            self._counts = torch.zeros(2 * self.BINS, dtype=torch.int32, device=logits.device)
        # A diverged map must not break the count; the loss tells of it.
        values = focus_logits(logits).float().nan_to_num(0.0).clamp(-self.LIMIT, self.LIMIT)
        bins = ((values + self.LIMIT) * ((self.BINS - 1) / (2 * self.LIMIT))).long()
        rows, columns = (torch.arange(n, device=logits.device) * stride for n in labels.shape[1:])
        shown = (rows < valid_hw[:, :1]).unsqueeze(2) & (columns < valid_hw[:, 1:]).unsqueeze(1)
        places = bins + self.BINS * (labels == 1)
        self._counts.index_add_(0, places.flatten(), shown.flatten().to(torch.int32))

    def take(self) -> Tensor:
        """(2,) float64 on the CPU: focus cells that were found, and all focus cells; what was counted starts anew."""
        if self._counts is None:
            return torch.zeros(2, dtype=torch.float64)
        counts = self._counts.view(2, self.BINS).flip(1).cpu().double()  # best first
        self._counts = None
        cells, focus = counts.sum(dim=0), counts[1]
        ahead = cells.cumsum(dim=0) - cells
        taken = ((self.fraction * cells.sum() - ahead) / cells.clamp(min=1)).clamp(0, 1)  # share of each bin
        return torch.stack(((focus * taken).sum(), focus.sum()))

    def metrics(self) -> dict[str, Tensor]:
        """``take`` under its name, as ``detectors.protocol.ReportsMetrics`` has it."""
        return {self.name: self.take()}
