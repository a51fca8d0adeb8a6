"""Check datasets before training: what is wrong or suspicious, as a report, files and a repaired copy."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sniper.checks.config import CheckConfig
from sniper.checks.repaired import repaired
from sniper.checks.report import CheckReport
from sniper.checks.run import check_datasets
from sniper.data.options import AS_WORDS, Format, OptionNames
from sniper.data.place import existing_dataset
from sniper.data.source import DataSource
from sniper.data.splits import Part, parts_of
from sniper.data.table import AnnotationTable
from sniper.data.writers.coco import relative_names, write_coco
from sniper.errors import DataError, StorageError
from sniper.files import write_text


class Loaded(NamedTuple):
    """The parts of some datasets by name, each as a table or as the error that reading it raised."""

    parts: list[tuple[str, AnnotationTable | DataError]]

    @property
    def images(self) -> int:
        """Images of all parts that could be read."""
        return sum(len(table) for _, table in self.parts if isinstance(table, AnnotationTable))


def load_parts(
    data: Path | str | AnnotationTable | Iterable[Path | str | AnnotationTable],
    *,
    split: str | None = None,
    format: Format | None = None,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    masks: bool = False,
    options: OptionNames = AS_WORDS,
) -> Loaded:
    """All splits of all datasets, or of each the one that is named; ``masks`` are for a repaired copy.

    Raises:
        DataError: a path is not there.
    """
    chosen = None if classes is None else tuple(classes)
    given = [data] if isinstance(data, str | Path | AnnotationTable) else list(data)
    parts: list[tuple[str, AnnotationTable | DataError]] = []
    for one in given:
        if isinstance(one, AnnotationTable):
            parts.append((str(one.root), one))
            continue
        existing_dataset(one)
        for part in [Part(Path(one), split)] if split is not None else parts_of(one):
            try:
                source = DataSource(part.path, part.split, format, images, chosen, options)
                table: AnnotationTable | DataError = source.open(skip_bad_images=True, masks=masks)
            except DataError as error:
                table = error
            parts.append((part.name, table))
    return Loaded(parts)


def check(
    data: Path | str | AnnotationTable | Iterable[Path | str | AnnotationTable] | Loaded,
    *,
    output: Path | str | None = None,
    fix: Path | str | None = None,
    open_images: bool = True,
    split: str | None = None,
    format: Format | None = None,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    config: CheckConfig | None = None,
    threads: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> CheckReport:
    """Find what is wrong or suspicious in datasets that are used together, such as the splits of one.

    Args:
        data: one or more datasets of any form; of each all splits are checked.
        output: folder for ``check.json`` and ``index.html``, which shows the worst cases; none: no files.
        fix: a new folder for a COCO file of each dataset without what is wrong (``checks.repaired``).
        open_images: decode every image; else only annotations are checked.
        split: this split only.
        format: form of the datasets; none: found.
        images: folder of the images, if not the usual one.
        classes: these only, in this order.
        config: from when on something is suspicious.
        threads: that open images; none: one a core.
        on_progress: told how many more images have been opened.

    Raises:
        DataError: a path is not there. What else cannot be read is a finding.
        StorageError: ``fix`` is not empty, or files cannot be written.
    """
    if fix is not None and Path(fix).exists() and (not Path(fix).is_dir() or any(Path(fix).iterdir())):
        raise StorageError(f"{fix} exists and is not empty; choose another folder for the repaired dataset")
    config = config or CheckConfig()
    loaded = data if isinstance(data, Loaded) else load_parts(
        data, split=split, format=format, images=images, classes=classes, masks=fix is not None
    )  # fmt: skip
    report = check_datasets(loaded.parts, config, images=open_images, threads=threads, on_progress=on_progress)
    if output is not None:
        write_text(Path(output) / "check.json", json.dumps(report.as_dict()))
        _write_page(report, Path(output))
    if fix is not None:
        report.repaired.update(_write_repaired(report, Path(fix), config))
    return report


def _write_repaired(report: CheckReport, folder: Path, config: CheckConfig) -> dict[Path, list[str]]:
    """Write a COCO file of each dataset, repaired; what was changed in each, a line each."""
    written: dict[Path, list[str]] = {}
    for number, (name, *_) in enumerate(report.datasets):
        done = repaired(report, number, config)
        if done is not None:
            file = folder / f"{_file_stem(name, number, report)}.json"
            write_coco(done.table, file, relative_names(done.table, folder))
            written[file] = done.changes
    return written


def _file_stem(name: str, number: int, report: CheckReport) -> str:
    """The split, else the name of the file or folder; numbered where two datasets have the same."""
    path, _, split = name.removesuffix(")").partition(" (")
    stem = split or Path(path).stem or "data"
    earlier = [_file_stem(other, i, report) for i, (other, *_) in enumerate(report.datasets[:number])]
    return stem if stem not in earlier else f"{stem}-{number + 1}"


def _write_page(report: CheckReport, folder: Path) -> None:
    from sniper.report.check_page import check_page  # draws, which takes a second to import

    check_page(report).write(folder, embed=True)
