"""Where a header claims too much; with files in ``test_open.py``."""

import pytest

from facts import facts
from sniper.errors import DataError
from sniper.pixels.claims import refuse_claim


@pytest.mark.parametrize(
    ("size_wh", "file_bytes"),
    [((16383, 16383), 50), ((20_000, 25_000), 1), ((100_000, 100_000), 10_000), ((1, 1), 0)],  # a WebP of one colour
)
def test_claims_that_may_be_true_pass(size_wh: tuple[int, int], file_bytes: int) -> None:
    refuse_claim("a.tif", size_wh, file_bytes)


@pytest.mark.parametrize(("size_wh", "file_bytes"), [((20_000, 25_001), 500), ((100_000, 100_001), 10_000)])
def test_claims_beyond_any_file_are_refused(size_wh: tuple[int, int], file_bytes: int) -> None:
    with pytest.raises(DataError, match=facts("a.tif", f"{size_wh[0]}x{size_wh[1]} px", f"{file_bytes} bytes")):
        refuse_claim("a.tif", size_wh, file_bytes)


def test_a_png_holds_no_more_than_deflate_can_make_of_its_bytes() -> None:
    refuse_claim("a.png", (20_000, 20_000), 48_500, "PNG")  # white, one bit a pixel
    refuse_claim("a.png", (4_000, 5_000), 60, "PNG")  # too small to do harm
    with pytest.raises(DataError, match=r"a\.png is 20000x20000 px"):
        refuse_claim("a.png", (20_000, 20_000), 48_000, "PNG")
