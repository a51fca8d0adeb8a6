"""Measure detections that are there already, of any tool."""

import json
from dataclasses import dataclass
from pathlib import Path

from sniper.data.detection_files import read_detections
from sniper.data.source import DataSource
from sniper.data.table import AnnotationTable
from sniper.evaluation.config import CocoEvalConfig, ProtocolName
from sniper.evaluation.protocol import Score, all_curves, all_numbers
from sniper.evaluation.protocols import protocols_of
from sniper.files import write_bytes, write_text
from sniper.report.curves import draw_pr_curves


@dataclass(frozen=True, slots=True)
class Scored:
    """What protocols say of detections."""

    scores: tuple[Score, ...]  # one a protocol
    images: int
    detections: int

    def as_dict(self) -> dict[str, float]:
        """The numbers of all protocols by name."""
        return all_numbers(self.scores)


def score(
    detections: Path | str,
    data: Path | str | DataSource | AnnotationTable,
    *,
    protocols: tuple[ProtocolName, ...] = ("coco",),
    output: Path | str | None = None,
) -> Scored:
    """Measure detections on a dataset, whose images need not be there.

    Args:
        detections: COCO results JSON, a folder in WIDER FACE's layout, or a detection table of ours.
        data: dataset by path (its form and the split to evaluate on are found), as a ``DataSource``, or loaded.
        protocols: how detections are measured, ``coco``, ``voc``, ``openimages``, ``wider``.
        output: folder for ``metrics.json`` and ``pr_curves.png``; none: no files.

    Raises:
        DataError: the dataset or the detections cannot be used, or do not fit one another.
        StorageError: ``output`` cannot be written.
    """
    if not isinstance(data, AnnotationTable):
        data = (data if isinstance(data, DataSource) else DataSource(data)).open("evaluate")
    found = read_detections(detections, data)
    config = CocoEvalConfig(protocols=protocols)
    done = Scored(tuple(protocol(data, found) for protocol in protocols_of(config)), len(data), found.num_objects)
    if output is not None:
        write_bytes(Path(output) / "pr_curves.png", draw_pr_curves(all_curves(done.scores)))
        write_text(Path(output) / "metrics.json", json.dumps(done.as_dict(), indent=1))
    return done
