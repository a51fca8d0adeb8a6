"""Where a dataset is; without NumPy, so that a wrong path is answered at once."""

from pathlib import Path

from sniper.files import existing


def existing_dataset(path: Path | str) -> Path:
    """The path of a dataset that is there, in whatever form.

    Raises:
        DataError: nothing is there.
    """
    return existing(path, "give a COCO JSON file, a data.yaml, or a folder of a dataset")


def existing_proposals(path: Path | str) -> Path:
    """The path of a file of proposals that is there.

    Raises:
        DataError: nothing is there.
    """
    return existing(path, "give a file that sniper propose wrote, or COCO results")
