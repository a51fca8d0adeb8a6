"""Check datasets: their annotations, their images, and what they share."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sniper.checks.annotations import check_annotations
from sniper.checks.config import CheckConfig
from sniper.checks.findings import Finding, Kind, Place
from sniper.checks.images import ImageFacts, check_images, open_images
from sniper.checks.report import Checked, CheckReport
from sniper.checks.similar import similar_images
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pixels.sample_map import FULL_RANGE, SampleMap
from sniper.pixels.survey import survey


def check_datasets(
    datasets: Sequence[tuple[str, AnnotationTable | DataError]],
    config: CheckConfig,
    *,
    images: bool,
    threads: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> CheckReport:
    """All findings in some datasets, by name, loaded or with the error that loading them raised.

    With ``images`` every file is opened, by ``threads`` (none: one a core); ``on_progress`` is told how many more.
    """
    checked: list[Checked] = []
    findings: list[Finding] = []
    opened: dict[int, ImageFacts] = {}
    for number, (name, table) in enumerate(datasets):
        if isinstance(table, DataError):
            checked.append(Checked(name, None))
            findings.append(Finding(Kind.UNREADABLE_ANNOTATIONS, number, str(table)))
            continue
        sample_map = _range_of(table) if images else SampleMap()
        checked.append(Checked(name, table, sample_map))
        unreadable = () if table.repairs is None else table.repairs.unreadable
        findings += [Finding(Kind.UNREADABLE_IMAGE, number, str(error)) for error in unreadable]
        findings += check_annotations(table, number, config)
        if images:
            opened[number] = open_images(table, sample_map, threads=threads, on_progress=on_progress)
            findings += check_images(opened[number], number, config)
    findings += _shared(checked, opened, config)
    return CheckReport(checked, findings, images)


def _range_of(table: AnnotationTable) -> SampleMap:
    """What ``data.value_range: auto`` finds, so that 12-bit images in 16-bit files are not called dark."""
    return SampleMap(survey([table.image_path(row) for row in range(len(table))]).value_range or FULL_RANGE)


def _shared(checked: list[Checked], opened: dict[int, ImageFacts], config: CheckConfig) -> list[Finding]:
    """Images that occur twice, by their path and by what they show; in two datasets it is wrong."""
    pairs: dict[Place, tuple[Place, str, float]] = {}
    first: dict[str, Place] = {}
    for number, (_, table, _) in enumerate(checked):
        if table is None:
            continue
        root = Path(table.root).absolute()
        for row, file_name in enumerate(table.file_names):
            place = Place(number, row)
            earlier = first.setdefault(str(root / file_name), place)
            if earlier is not place:
                pairs[place] = earlier, "the same file as", 0.0
    if opened:
        places = [
            Place(number, row) for number, facts in opened.items() for row in np.flatnonzero(facts.readable).tolist()
        ]
        thumbnails = np.concatenate([facts.thumbnails[facts.readable] for facts in opened.values()])
        for one, other, difference in zip(*similar_images(thumbnails, config), strict=True):
            what = "looks the same as" if difference else "shows the same as"
            pairs.setdefault(places[other], (places[one], what, float(difference)))
    return [
        Finding(
            Kind.SAME_IMAGE if place.dataset == twin.dataset else Kind.IN_TWO_SPLITS,
            place.dataset,
            what,
            place.image_row,
            twin=twin,
            badness=-difference,
        )
        for place, (twin, what, difference) in sorted(pairs.items())
    ]
