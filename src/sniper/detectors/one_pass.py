"""What follows for every detector that gives all it knows from one forward pass."""

from typing import Any

from torch import Tensor, nn

from sniper.detectors.protocol import Outputs
from sniper.structures import Batch, Detections, Images


class OnePass(nn.Module):
    """Base of a detector with ``losses``, ``outputs`` (``detectors.protocol.MultiOutput``) and perhaps a focus branch.

    The branch, ``focus``, is a ``nn.focus_head.FocusHead`` or whatever else counts its recall in ``recall``.
    """

    focus: Any

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a batch."""
        raise NotImplementedError

    def outputs(
        self,
        images: Images,
        *,
        detections: bool = True,
        proposals: bool = False,
        focus: bool = False,
        features: bool = False,
    ) -> Outputs:
        """What is asked for and there are branches for; the rest is None and not computed."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Network px per cell of the map that a focus branch sees."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, so that wrappers which hook into ``forward`` (distributed training, compilation) work."""
        return self.losses(batch)

    def detect(self, images: Images) -> list[Detections]:
        """Detections of each padded input, best first, clipped to its valid region, network px."""
        found = self.outputs(images).detections
        assert found is not None
        return found

    def training_metrics(self) -> dict[str, Tensor]:
        """``focus_recall_at_10`` since the last call, with a focus branch."""
        return {} if self.focus is None else self.focus.recall.metrics()

    @property
    def focus_stride(self) -> int | None:
        """Network px per cell of the focus map; None without a focus branch."""
        return None if self.focus is None else self.stride


class Proposes:
    """Mixed into a ``OnePass`` that has proposals too; without them a detector must not seem to be a ``Proposer``."""

    def propose(self: "OnePass", images: Images) -> list[Detections]:  # type: ignore[misc]
        """Regions without a class (all labels 0) with their objectness, best first, network px."""
        found = self.outputs(images, detections=False, proposals=True).proposals
        assert found is not None
        return found
