"""What ``sniper`` asks of a detector. Nothing else is needed to train it on chips and to run it.

A detector is a ``torch.nn.Module`` with two methods. Chips, ranges, merging, evaluation and checkpoints work
with every one. What only some detectors can do (propose regions, predict a focus map or masks) is a small
protocol of its own and is asked for with ``isinstance``, never with a flag.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from sniper.structures import Batch, Detections, Images


@runtime_checkable
class Detector(Protocol):
    """Anything that can be trained on chips and detect on padded inputs."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of a batch in training mode; training minimises their sum.

        ``batch.targets()`` are the objects to learn, labels from 1 (``first_label=0``: from 0, for a network without a
        background class). A detector that can should leave ``batch.ignored`` and
        ``batch.crowd`` out of its background; one that cannot still works, with a few more false negatives.
        """
        ...

    def detect(self, images: Images) -> list[Detections]:
        """One ``Detections`` a padded input, boxes in network px, in evaluation mode and without gradients."""
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


class Outputs(NamedTuple):
    """What one forward pass says about B padded inputs, as far as it was asked for."""

    detections: list[Detections] | None = None
    proposals: list[Detections] | None = None
    focus: Tensor | None = None  # (B, h, w) probability that a cell shows a small object
    features: list[Tensor] | None = None  # B of (F, h, w), for ``MaskDetector.predict_masks``


@runtime_checkable
class MultiOutput(Protocol):
    """A detector that gives all it knows from one forward pass. Without it, ``detect`` and ``propose`` are called."""

    def outputs(
        self,
        images: Images,
        *,
        detections: bool = True,
        proposals: bool = False,
        focus: bool = False,
        features: bool = False,
    ) -> Outputs:
        """What is asked for and the detector has; the rest is None and not computed. Evaluation mode, no gradients."""
        ...


class DescribedRegions(NamedTuple):
    """Regions of one padded input whatever their class, best first, with what a classifier can tell them apart by."""

    boxes: Tensor  # (N, 4) xyxy, network px
    scores: Tensor  # (N,) objectness in [0, 1]
    features: Tensor  # (N, D) float32


@runtime_checkable
class RegionDescriber(Protocol):
    """A detector whose own features tell classes apart that it was not trained for."""

    def describe_regions(
        self, images: Images, given: list[Tensor], *, max_regions: int, nms_iou: float
    ) -> list[DescribedRegions]:
        """At most ``max_regions`` found in a padded input after NMS at ``nms_iou``, then those that are given.

        ``given`` are B of (G, 4) boxes, network px, whose scores are 0. Evaluation mode, no gradients.
        """
        ...


class FixedOutputs(NamedTuple):
    """What one forward pass says about B padded inputs, in shapes that do not depend on what is found: D and R slots.

    Best first; rows beyond a count are zero. Boxes are xyxy, network px.
    """

    boxes: Tensor  # (B, D, 4)
    scores: Tensor  # (B, D) in [0, 1]
    labels: Tensor  # (B, D) int64 class index from 0
    counts: Tensor  # (B,) int64 detections that count
    proposal_boxes: Tensor | None = None  # (B, R, 4); None, as the next two: it does not propose
    proposal_scores: Tensor | None = None  # (B, R) in [0, 1]
    proposal_counts: Tensor | None = None  # (B,) int64 proposals that count
    focus: Tensor | None = None  # (B, h, w) probability that a cell shows a small object


@runtime_checkable
class ExportableDetector(Protocol):
    """A detector that can also be written as a graph for other runtimes."""

    def fixed_outputs(self, images: Images) -> FixedOutputs:
        """What ``MultiOutput.outputs`` gives, in fixed shapes and traceable by ``torch.export``. Evaluation mode."""
        ...

    def half_precision(self) -> None:
        """Have the parts that bear it compute in half precision, in place and for good; inputs and outputs stay."""
        ...


@runtime_checkable
class MaskDetector(MultiOutput, Protocol):
    """A detector that can also tell which part of a box the object fills.

    Masks are asked for when detections of all levels are merged, so that none is computed for a box that goes.
    """

    @property
    def predicts_masks(self) -> bool:
        """Whether it was built with a mask branch; without one, it has no features, and no masks of them."""
        ...

    def predict_masks(self, features: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """(N, M, M) probabilities that the middle of each cell of a grid over a box is inside the object.

        ``features`` (F, h, w) are those of one padded input, ``boxes`` (N, 4) in its network px, ``labels`` (N,) from
        0.
        """
        ...


@runtime_checkable
class FocusDetector(MultiOutput, Protocol):
    """A detector that can also say where a closer look would show small objects, for AutoFocus."""

    @property
    def focus_stride(self) -> int | None:
        """Network px per cell of the focus map; None: this one was built without."""
        ...


@runtime_checkable
class ReportsMetrics(Protocol):
    """A detector that can also say how well it does while it trains, in more than its losses."""

    def training_metrics(self) -> dict[str, Tensor]:
        """Shares since the last call, from the batches that ``losses`` saw; what was counted starts anew.

        Each is (2,): how many, of how many. Both are summed over processes before they are divided; nothing out of
        nothing is not a number. The names are always the same. Called when a line of the metrics log is written.
        """
        ...
