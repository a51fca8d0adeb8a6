"""What ``sniper`` asks of a detector. Nothing else is needed to train it on chips and to run it.

A detector is a ``torch.nn.Module`` with two methods. Chips, ranges, merging, evaluation and checkpoints work
with every one. What only some detectors can do (propose regions, predict a focus map or masks) is a small
protocol of its own and is asked for with ``isinstance``, never with a flag.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor

from sniper.structures import Batch, Detections, Images


@runtime_checkable
class Detector(Protocol):
    """Anything that can be trained on chips and detect on canvases."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a batch in training mode; training minimises their sum.

        ``batch.targets()`` are the objects to learn. A detector that can should leave ``batch.ignored`` and
        ``batch.crowd`` out of its background; one that cannot still works, with a few more false negatives.
        """
        ...

    def detect(self, images: Images) -> list[Detections]:
        """One ``Detections`` a canvas, boxes in network px, in evaluation mode and without gradients."""
        ...


@runtime_checkable
class Proposer(Protocol):
    """A detector that can also name regions without a class, for mining hard negatives."""

    def propose(self, images: Images) -> list[Detections]:
        """Class-free boxes (all labels 0), network px, best first."""
        ...


@runtime_checkable
class ProposalTrainer(Protocol):
    """A detector whose proposal stage can be trained by itself, briefly, before negatives are mined."""

    def proposal_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the proposal stage alone, without computing the others."""
        ...
