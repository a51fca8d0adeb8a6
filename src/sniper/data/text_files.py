"""Text files that come with datasets: lists of images and of class names, an entry a line."""

from pathlib import Path

from sniper.errors import DataError


def lines_of(file: Path, what: str) -> list[str]:
    """The lines of a file that are not blank, without the space around them; ``what`` they are is said in errors.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}; expected {what}, one a line, in UTF-8") from error
    return [line.strip() for line in lines if line.strip()]
