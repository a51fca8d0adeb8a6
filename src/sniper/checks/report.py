"""What a check of datasets came to: counted by kind, as plain values, and one line a file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sniper.checks.findings import Finding, Kind
from sniper.data.table import AnnotationTable
from sniper.pixels.sample_map import SampleMap


class Checked(NamedTuple):
    """A dataset that was checked."""

    name: str  # as it was given, with the split
    table: AnnotationTable | None  # None: it could not be read
    sample_map: SampleMap = SampleMap()  # the range of its 16-bit values, where images are opened


class Row(NamedTuple):
    """All findings of a kind."""

    kind: Kind
    files: int  # images concerned
    objects: int
    worst: Finding


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All that was found in some datasets, checked together."""

    datasets: list[Checked]
    findings: list[Finding]
    images_opened: bool
    repaired: dict[Path, list[str]] = field(default_factory=dict)  # COCO files written, and what was changed in each

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong; something may be suspicious."""
        return not any(finding.kind.is_wrong for finding in self.findings)

    def worst(self, kind: Kind) -> list[Finding]:
        """The findings of a kind, worst first."""
        return sorted((f for f in self.findings if f.kind is kind), key=lambda f: -f.badness)

    def rows(self) -> list[Row]:
        """A row for each kind that occurs, what is wrong first."""
        rows = []
        for kind in Kind:
            found = self.worst(kind)
            if found:
                images = {(f.dataset, f.image_row) for f in found if f.image_row is not None}
                objects = sum(0 if f.annotation_ids is None else len(f.annotation_ids) for f in found)
                rows.append(Row(kind, len(images), objects, found[0]))
        return rows

    def file_of(self, finding: Finding) -> str:
        """The file that a finding is about: an image, or the dataset."""
        name, table, _ = self.datasets[finding.dataset]
        if finding.image_row is None or table is None:
            return name
        return str(table.image_path(finding.image_row))

    def sentence(self, finding: Finding) -> str:
        """A finding in words, with its file and, of a pair, the other one."""
        if finding.kind in (Kind.UNREADABLE_ANNOTATIONS, Kind.UNREADABLE_IMAGE, Kind.SIZE_DIFFERS):
            return finding.detail  # which names the file
        twin = "" if finding.twin is None else f" {self._twin(finding)}"
        return f"{self.file_of(finding)}: {finding.detail}{twin}"

    def _twin(self, finding: Finding) -> str:
        assert finding.twin is not None
        name, table, _ = self.datasets[finding.twin.dataset]
        assert table is not None
        return f"{table.image_path(finding.twin.image_row)} of {name}"

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        counts = Counter(finding.kind.value for finding in self.findings)
        return {
            "version": 1,
            "sound": self.is_sound,
            "images_opened": self.images_opened,
            "datasets": [_facts(checked) for checked in self.datasets],
            "counts": {kind.value: counts[kind.value] for kind in Kind if counts[kind.value]},
            "findings": list(self._plain()),
        }

    def _plain(self) -> Iterator[dict[str, Any]]:
        for finding in self.findings:
            table = self.datasets[finding.dataset].table
            row = finding.image_row
            entry: dict[str, Any] = {
                "kind": finding.kind.value,
                "wrong": finding.kind.is_wrong,
                "dataset": finding.dataset,
                "file": self.file_of(finding),
                "image_id": None if row is None or table is None else int(table.image_ids[row]),
                "detail": finding.detail,
            }
            if finding.annotation_ids is not None and finding.boxes_xyxy is not None:
                entry["annotation_ids"] = finding.annotation_ids.tolist()
                finite = np.isfinite(finding.boxes_xyxy).all(axis=1)
                boxes = finding.boxes_xyxy.round(2).tolist()
                entry["boxes_xyxy"] = [box if ok else None for box, ok in zip(boxes, finite.tolist(), strict=True)]
            if finding.twin is not None:
                entry["twin"] = self._twin(finding)
            yield entry


def _facts(checked: Checked) -> dict[str, Any]:
    name, table, _ = checked
    if table is None:
        return {"name": name, "images": None, "objects": None}
    counts = np.bincount(table.labels, minlength=len(table.class_names)).tolist()
    return {
        "name": name,
        "images": len(table),
        "objects": table.num_objects,
        "images_without_objects": int((np.diff(table.offsets) == 0).sum()),
        "classes": dict(zip(table.class_names, counts, strict=True)),
    }
