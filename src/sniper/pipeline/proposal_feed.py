"""Which proposals an epoch's negative chips are made from: files of a run, looked up by epoch and never made here."""

from pathlib import Path

from sniper.chips.negative import NegativeConfig, Proposals, false_positives
from sniper.data.detection_files import read_proposals
from sniper.data.table import AnnotationTable


class ProposalFeed:
    """The first proposals of a run, if any, and from the ``every``-th epoch on those that it made while training.

    A pure function of files and epoch: what it gives does not depend on what it was asked before.
    """

    def __init__(
        self,
        table: AnnotationTable,
        config: NegativeConfig,
        first: Path | None,
        *,
        every: int | None = None,
        folder: Path | None = None,
    ) -> None:
        """``first`` is a file of proposals; ``folder`` holds those of epochs ``every``, ``2 * every``, ..."""
        self._table, self._config, self._first = table, config, first
        self._every, self._folder = every, folder
        self._latest: tuple[Path | None, Proposals | None] = (None, None)

    def since(self, epoch: int) -> int:
        """The epoch whose proposals are used in ``epoch``; 0: the first ones."""
        return 0 if self._every is None or self._folder is None else epoch // self._every * self._every

    def file(self, epoch: int) -> Path | None:
        """Where the proposals of an epoch are, or should be; None: it has none."""
        since = self.since(epoch)
        if since == 0 or self._folder is None:
            return self._first
        return self._folder / f"proposals-epoch{since}.safetensors"

    def at(self, epoch: int) -> Proposals | None:
        """False positives among the proposals of an epoch, by image of the table; None: it has no proposals.

        Raises:
            DataError: their file is missing, or not of this table.
        """
        path = self.file(epoch)
        if path != self._latest[0]:
            self._latest = path, None if path is None else self._false_positives(path)
        return self._latest[1]

    def _false_positives(self, path: Path) -> Proposals:
        found = read_proposals(path, self._table)
        return false_positives(self._table, Proposals(found.offsets, found.boxes_xyxy, found.scores), self._config)


def feed_from_file(path: Path | str, table: AnnotationTable, config: NegativeConfig) -> ProposalFeed:
    """The proposals of a file, for reports on the negative chips that they make."""
    return ProposalFeed(table, config, Path(path))
