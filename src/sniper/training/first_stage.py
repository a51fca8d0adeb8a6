"""Training of the proposal network alone, for negative chips."""

from torch import Tensor, nn

from sniper.detectors.protocol import Detector, ProposalTrainer
from sniper.structures import Batch

RPN_PREFIX = "rpn_"  # names of the first stage's losses


class FirstStage(nn.Module):
    """A detector of whose losses only the first stage's count.

    A detector that is no ``ProposalTrainer`` computes all its losses, of which those named ``rpn_...`` are kept; one
    that has none so named is trained whole, and its detections serve as proposals.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses of the first stage."""
        if isinstance(self.detector, ProposalTrainer):
            return self.detector.proposal_losses(batch)
        assert isinstance(self.detector, Detector)
        losses = self.detector.losses(batch)
        first = {name: loss for name, loss in losses.items() if name.startswith(RPN_PREFIX)}
        return first or losses
