"""Headers that claim more pixels than their file can hold: damage that would take all memory to find out later."""

from sniper.errors import DataError

_FEWEST_PIXELS = 500_000_000  # fewer do no harm
_PIXELS_A_BYTE = 1_000_000  # an empty page of a fax, where every line is one bit, has half


def refuse_claim(place: str, size_wh: tuple[int, int], file_bytes: int) -> None:
    """Refuse an image of ``size_wh`` in a file of ``file_bytes``, if no form of compression holds as much.

    Raises:
        DataError: none does; ``place`` names the file.
    """
    width, height = size_wh
    if width * height > max(_FEWEST_PIXELS, file_bytes * _PIXELS_A_BYTE):
        raise DataError(
            f"{place} is {width}x{height} px by its header, which {file_bytes} bytes cannot hold; replace the file or "
            "remove the image"
        )
