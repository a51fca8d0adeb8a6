"""Headers that claim more pixels than their file can hold: damage that would take all memory to find out later."""

from sniper.errors import DataError

_FEWEST_PIXELS = 500_000_000  # fewer do no harm
_PIXELS_A_BYTE = 1_000_000  # an empty page of a fax, where every line is one bit, has half
# Deflate makes at most 1,032 bytes of one, each of eight pixels of one bit.
_PNG_FEWEST_PIXELS, _PNG_PIXELS_A_BYTE = 20_000_000, 8 * 1032


def refuse_claim(place: str, size_wh: tuple[int, int], file_bytes: int, form: str | None = None) -> None:
    """Refuse an image of ``size_wh`` in a file of ``file_bytes``, if no form of compression holds as much.

    ``form`` is Pillow's name of the format, where it is known.

    Raises:
        DataError: none does; ``place`` names the file.
    """
    width, height = size_wh
    fewest, a_byte = _FEWEST_PIXELS, _PIXELS_A_BYTE
    if form == "PNG":
        fewest, a_byte = _PNG_FEWEST_PIXELS, _PNG_PIXELS_A_BYTE
    if width * height > max(fewest, file_bytes * a_byte):
        raise DataError(
            f"{place} is {width}x{height} px by its header, which {file_bytes} bytes cannot hold; replace the file or "
            "remove the image"
        )
