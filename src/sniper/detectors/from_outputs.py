"""``detect`` and ``propose`` of a detector that gives all it knows from one forward pass."""

from sniper.detectors.protocol import MultiOutput
from sniper.structures import Detections, Images


class FromOutputs:
    """Mixed into a detector that has ``outputs`` (``detectors.protocol.MultiOutput``)."""

    def detect(self: MultiOutput, images: Images) -> list[Detections]:
        """Boxes above ``score_threshold``, best first, clipped to the valid region, network px.

        Classes do not suppress each other here, nor do boxes of one class: levels are merged first, then suppressed.
        """
        found = self.outputs(images).detections
        assert found is not None
        return found

    def propose(self: MultiOutput, images: Images) -> list[Detections]:
        """Regions without a class (all labels 0) with their objectness, best first, network px."""
        found = self.outputs(images, detections=False, proposals=True).proposals
        assert found is not None
        return found
