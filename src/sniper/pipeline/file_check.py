"""Image files are looked at before training: what cannot be read, and what is in both datasets."""

import filecmp
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pipeline.sources import BadImage
from sniper.pixels.quick_look import FileFacts, quick_look
from sniper.progress import ProgressLines

logger = logging.getLogger("sniper")

_THREADS = 8  # small reads, mostly waiting


class ImageFiles(NamedTuple):
    """A dataset with the facts of its files, in its order."""

    table: AnnotationTable
    facts: list[FileFacts]


def check_files(
    train: AnnotationTable,
    evaluate: AnnotationTable | None,
    *,
    whole_pixels: float,
    on_bad_image: BadImage,
    log: Callable[[str], None],
) -> None:
    """Look at headers and ends of all files that a training will read; ``log`` is told how far this is.

    A warning says how many images are in both datasets, and with ``on_bad_image: skip`` how many cannot be read.

    Raises:
        DataError: an image cannot be read and ``on_bad_image`` is ``stop``, or none of a dataset can.
    """
    tables = [table for table in (train, evaluate) if table is not None]
    lines = ProgressLines("checking image files", sum(map(len, tables)), log)
    looked = [_look(table, whole_pixels, lines.advance) for table in tables]
    for files in looked:
        _judge(files, on_bad_image)
    if len(looked) == 2:
        _tell_of_shared(*looked)


def _look(table: AnnotationTable, whole_pixels: float, on_progress: Callable[[int], None]) -> ImageFiles:
    def look(row: int) -> FileFacts:
        width, height = table.sizes_wh[row].tolist()
        return quick_look(
            table.image_path(row),
            size_wh=(width, height),
            whole_pixels=whole_pixels,
            image_id=int(table.image_ids[row]),
        )

    facts = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for one in pool.map(look, range(len(table))):
            facts.append(one)
            on_progress(1)
    return ImageFiles(table, facts)


def _judge(files: ImageFiles, on_bad_image: BadImage) -> None:
    errors = [one.error for one in files.facts if one.error is not None]
    if not errors:
        return
    count = f"{len(errors)} of {len(files.facts)} images"
    if len(errors) == len(files.facts):
        raise DataError(f"none of {len(errors)} images can be read; the first: {errors[0]}")
    if on_bad_image == "stop":
        raise DataError(
            f"{errors[0]} ({count} of {files.table.root} cannot be used; to go on without them: "
            "--on-bad-image skip, or loader.on_bad_image: skip)"
        )
    logger.warning("%s of %s cannot be used and will be skipped; the first: %s", count, files.table.root, errors[0])


def shared_images(one: ImageFiles, other: ImageFiles) -> list[tuple[int, int]]:
    """Rows of images that are in both datasets: the same file, by whatever path, or files of the same bytes."""
    by_identity = {facts.identity: row for row, facts in enumerate(one.facts) if facts.identity is not None}
    by_mark = defaultdict(list)
    for row, facts in enumerate(one.facts):
        by_mark[facts.mark].append(row)
    shared = []
    for row, facts in enumerate(other.facts):
        if facts.identity is None:
            continue
        found = by_identity.get(facts.identity)
        if found is None:
            found = _with_same_bytes(one.table, by_mark.get(facts.mark, ()), other.table, row)
        if found is not None:
            shared.append((found, row))
    return shared


def _with_same_bytes(one: AnnotationTable, rows: Sequence[int], other: AnnotationTable, row: int) -> int | None:
    path = other.image_path(row)
    return next((candidate for candidate in rows if filecmp.cmp(one.image_path(candidate), path, shallow=False)), None)


def _tell_of_shared(train: ImageFiles, evaluate: ImageFiles) -> None:
    shared = shared_images(train, evaluate)
    if shared:
        first, second = shared[0]
        logger.warning(
            "%d of %d evaluation images are training images too, such as %s and %s: the scores do not tell how well "
            "the detector does on new images; name another split or dataset for evaluation",
            len(shared), len(evaluate.facts), train.table.image_path(first), evaluate.table.image_path(second),
        )  # fmt: skip
