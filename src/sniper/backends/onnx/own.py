"""A detector that ``sniper export`` wrote, behind inference."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sniper.backends.onnx.session import Session, counted
from sniper.backends.onnx.strategy import Strategy
from sniper.errors import RecipeError
from sniper.inference.backend import Looked, Want
from sniper.inference.focus_source import FALLBACK_STRIDE, map_of_small

_DETECTIONS = ["boxes", "scores", "labels", "counts"]
_PROPOSALS = ["proposal_boxes", "proposal_scores", "proposal_counts"]


class OnnxBackend:
    """Satisfies ``inference.backend.Backend``."""

    predicts_masks = False

    def __init__(self, session: Session, strategy: Strategy) -> None:
        """Run the file of ``session``, which ``strategy`` describes."""
        self._session, self._strategy = session, strategy
        self.name = strategy.detector

    @property
    def proposes(self) -> bool:
        """Whether the file gives proposals, too."""
        return self._strategy.proposes

    @property
    def focus_source(self) -> Literal["branch", "proposals", "detections"]:
        """A focus branch, else proposals, else inference's detections."""
        if self._strategy.focus_stride is not None:
            return "branch"
        return "proposals" if self.proposes else "detections"

    @property
    def focus_stride(self) -> int | None:
        """Network px per cell of the focus maps; None: there are none."""
        return self._strategy.focus_stride or (FALLBACK_STRIDE if self.proposes else None)

    def look(
        self, inputs: NDArray[np.uint8], valid_hw: NDArray[np.int64], scale: NDArray[np.float32], want: Want
    ) -> Looked:
        """Run the network once on a batch; see ``Backend.look``."""
        proposals = want.regions == "proposals" and self.proposes
        by_proposals = want.focus and self.focus_source == "proposals"
        names = [*([] if proposals else _DETECTIONS), *(_PROPOSALS if proposals or by_proposals else [])]
        if want.focus and self.focus_source == "branch":
            names.append("focus")
        inputs = self._padded(inputs)
        found = dict(zip(names, self._session.run(names, {"images": inputs, "valid_hw": valid_hw}), strict=True))
        focus = found.get("focus")
        if by_proposals:
            focus = _maps(found, inputs.shape[1:3])
        if proposals:
            boxes, scores = counted([found[name] for name in _PROPOSALS[:2]], found["proposal_counts"])
            return Looked(boxes, scores, np.zeros(len(scores), np.int64), _offsets(found["proposal_counts"]), focus)
        boxes, scores, labels = counted([found[name] for name in _DETECTIONS[:3]], found["counts"])
        return Looked(boxes, scores, labels, _offsets(found["counts"]), focus)

    def _padded(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The inputs at the size that the file takes.

        Raises:
            RecipeError: they are larger.
        """
        side = self._strategy.side_px
        if side is None or inputs.shape[1:3] == (side, side):
            return inputs
        more = [side - one for one in inputs.shape[1:3]]
        if min(more) < 0:
            raise RecipeError(
                f"a window of {list(inputs.shape[1:3])} px does not fit the input {[side, side]} that the file was "
                "written for; set inference.window_px to its side or less"
            )
        return np.pad(inputs, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))

    def masks(
        self, features: NDArray[np.floating], boxes: NDArray[np.floating], labels: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Not possible: ``predicts_masks`` is false."""
        raise NotImplementedError("an exported detector predicts no masks")


def _maps(found: dict[str, NDArray], padded_hw: tuple[int, ...]) -> NDArray[np.float32]:
    """(B, h, w) focus maps of proposals."""
    size = padded_hw[0], padded_hw[1]
    columns = zip(found["proposal_boxes"], found["proposal_scores"], found["proposal_counts"], strict=True)
    return np.stack([map_of_small(boxes[:count], scores[:count], size) for boxes, scores, count in columns])


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
