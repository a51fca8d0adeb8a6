"""Errors that a user can act on.

Every one carries a single sentence: the place (file, image id, line), what was expected, what came and
what to do. The command line prints that sentence and exits with code 2; it never shows a trace for them.
"""


class SniperError(Exception):
    """Something the user can mend; ``str(error)`` is the whole message."""


class DataError(SniperError):
    """A dataset, an annotation or an image that cannot be used."""


class RecipeError(SniperError):
    """A setting that is unknown, of the wrong type or out of range."""


class CheckpointError(SniperError):
    """A checkpoint that is missing, damaged or made for something else."""


class StorageError(SniperError):
    """A file that could not be written (disk full, no permission)."""


class DownloadError(SniperError):
    """A file that could not be fetched, or that is not the one expected."""


class StoppedError(SniperError):
    """Work that a signal ended early, once what it had was saved; the command line exits with 128 + ``number``."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number
