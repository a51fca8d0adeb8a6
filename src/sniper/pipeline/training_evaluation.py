"""The evaluations of a run while it trains."""

import logging

import numpy as np
from torch import nn

from sniper.backends.torch import TorchBackend
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pipeline.detect import shards_of
from sniper.pipeline.evaluate import Evaluation, OnProgress, evaluate_table
from sniper.progress import ProgressLines
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.training.devices import this_process
from sniper.training.position import Evaluated

logger = logging.getLogger("sniper")

REHEARSED = 2  # images


class TrainingEvaluation:
    """Evaluates a detector in training on a dataset; ``latest`` is what came of it last."""

    def __init__(self, table: AnnotationTable, pyramid: Pyramid, recipe: Recipe) -> None:
        self.table = table
        self.latest: Evaluation | None = None
        self._pyramid, self._recipe = pyramid, recipe

    def evaluate(self, detector: nn.Module) -> Evaluated:
        """The numbers of the whole dataset. Every process of the launch calls this, and runs on its share."""
        rank, ranks = this_process()
        share = sum(map(len, shards_of(self.table, self._recipe.inference)[rank::ranks]))
        lines = ProgressLines("evaluating images", share, logger.info if rank == 0 else lambda line: None)
        self.latest = self._run(detector, self.table, by_ranks=True, on_progress=lines.advance)
        return _told(self.latest)

    def rehearse(self, detector: nn.Module) -> Evaluated:
        """The numbers of two small images, for the errors that there may be: the same code as ``evaluate``.

        Raises:
            DataError: an image cannot be read and ``loader.on_bad_image`` is ``stop``, or none of the dataset can.
        """
        width, height = self.table.sizes_wh.T.astype(np.int64)
        smallest = np.lexsort((width * height, np.diff(self.table.offsets) == 0))  # those with objects first
        for start in range(0, len(smallest), REHEARSED):
            few = self.table.select(smallest[start : start + REHEARSED])
            try:
                return _told(self._run(detector, few))
            except DataError:
                last = start + REHEARSED >= len(smallest)
                if last or self._recipe.loader.on_bad_image == "stop":
                    raise
        return _told(self._run(detector, self.table))  # without images

    def _run(
        self,
        detector: nn.Module,
        table: AnnotationTable,
        *,
        by_ranks: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        backend = TorchBackend(
            detector, device=next(detector.parameters()).device, precision=self._recipe.inference.precision
        )
        return evaluate_table(
            backend,
            table,
            self._pyramid,
            self._recipe.inference,
            self._recipe.evaluation,
            on_bad_image=self._recipe.loader.on_bad_image,
            by_ranks=by_ranks,
            on_progress=on_progress,
            sample_map=self._recipe.data.sample_map,
        )


def _told(done: Evaluation) -> Evaluated:
    """What the loop keeps of an evaluation."""
    untold = tuple(name for score in done.scores for name in score.untold)
    return Evaluated(done.as_dict(), done.draw_scores, untold)
