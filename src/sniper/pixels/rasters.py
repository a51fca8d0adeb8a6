"""Image files read by windows through rasterio (the extra ``geotiff``), and where they lie on the ground.

Everything that GDAL reads: GeoTIFF, COG, BigTIFF, JPEG 2000, VRT, PNG, ... ``docs/method.md``, "Huge images".
"""

import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError
from sniper.pixels.claims import refuse_claim
from sniper.pixels.georeference import GeoReference
from sniper.pixels.orientation import oriented, oriented_size, stored_window
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.spilled import SpilledPixels

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Pixels = NDArray[np.uint8]

CACHE_BYTES = 256 * 1024 * 1024  # of decoded blocks, for all files together: a row of windows of a wide striped file
_BAND_BYTES = 32 * 1024 * 1024  # decoded at once on the way to a temporary file
_BLOCK_BYTES = 64 * 1024 * 1024  # blocks that are larger are not decoded again for each window
_OF_ONE_FILE = {"GTiff", "JP2OpenJPEG"}  # a VRT is a short file of many pixels
_FROM_THE_START = {"JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF", "JPEGXL"}  # formats without random access


def has_rasterio() -> bool:
    """Whether the extra ``geotiff`` is installed."""
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


class Raster:
    """An image file of any size; only what is asked for is decoded.

    Red, green and blue are the first three bands, or those that ``sample_map`` names; a first band without a third is
    grey, palettes are looked up, 16-bit samples become 8 bits by ``sample_map``: all as ``read_image`` does. Masks,
    alpha and no-data values play no part. Any thread may read, one at a time.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        orientation: int = 1,
        in_order: bool = True,
        image_id: int | None = None,
        sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
    ) -> None:
        """Open ``path``, whose stored pixels are turned by the EXIF ``orientation``, 1..8.

        Where windows will not come row by row (``in_order``), compressed strips are decoded once, as formats without
        random access are: into a temporary file, when something is first read.

        Raises:
            DataError: missing, no raster, without the bands asked for, or samples that are not unsigned with 8 or 16
                bit.
        """
        self._sample_map = sample_map
        self._place = str(path) if image_id is None else f"{path} (image id {image_id})"
        self._lock, self._orientation = Lock(), orientation
        self._file = _open(path, self._place)
        self._bands, self._palette, self._bits = _meaning(self._file, self._place, sample_map.bands)
        self._stored_wh: tuple[int, int] = (self._file.width, self._file.height)
        self.size_wh = oriented_size(self._stored_wh, orientation)
        self._spilled: SpilledPixels | None = None
        if _is_sequential(self._file, in_order):
            self._spilled = SpilledPixels(self._stored_wh, self._from_the_start, self._place)

    @property
    def is_spilled(self) -> bool:
        """Whether the file is decoded from its beginning, into a temporary file."""
        return self._spilled is not None

    @property
    def is_cmyk(self) -> bool:
        """Whether the bands are inks, which are not read as colours here."""
        return str(self._file.photometric).lower().endswith(("cmyk", "separated")) or any(
            one.name == "cyan" for one in self._file.colorinterp
        )

    def read(self, x1: int, y1: int, x2: int, y2: int) -> Pixels:
        """(y2 - y1, x2 - x1, 3) uint8 RGB, inside the image, upright.

        Raises:
            DataError: the file is damaged there, or cut off.
            StorageError: no room to decode a format without random access.
        """
        window = stored_window((x1, y1, x2, y2), self.size_wh, self._orientation)
        pixels = self._stored(*window) if self._spilled is None else self._spilled.read(*window)
        return oriented(pixels, self._orientation)

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        with self._lock:
            self._file.close()
        if self._spilled is not None:
            self._spilled.close()

    def _from_the_start(self) -> Iterator[Pixels]:
        width, height = self._stored_wh
        # Never all rows at once: GDAL reads a whole PNG by another way, which overlooks that the file is cut off.
        rows = max(1, min(_BAND_BYTES // (3 * width), height // 2))
        for top in range(0, height, rows):
            yield self._stored(0, top, width, min(top + rows, height))

    def _stored(self, x1: int, y1: int, x2: int, y2: int) -> Pixels:
        from rasterio import Env
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        try:
            with self._lock, Env(**_options()):
                samples = self._file.read(self._bands, window=Window(x1, y1, x2 - x1, y2 - y1))
        except (RasterioError, OSError) as error:
            cause = str(error.__cause__ or error).rstrip(".")
            raise DataError(
                f"{self._place} is damaged or cut off: rows {y1} to {y2} cannot be decoded ({cause}); "
                "replace the file or remove the image"
            ) from error
        return _to_rgb(samples, self._palette, self._bits, self._sample_map)


class RasterFacts(NamedTuple):
    """What a file says of its samples."""

    kind: str  # uint8, uint16, ... of the first band
    bands: int
    samples: NDArray[np.uint16] | None  # some of the first bands, flat


def raster_facts(path: Path | str, *, samples: bool = False) -> RasterFacts | None:
    """Kind and number of bands, and some 16-bit samples out of nine windows; None where rasterio cannot say."""
    if not has_rasterio():
        return None
    from rasterio import Env
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    try:
        with Env(**_options()), _open(path, str(path)) as file:
            if not file.count:
                return None
            kind, values = str(file.dtypes[0]), []
            if samples and kind == "uint16":
                side, bands = 256, [1, 2, 3] if file.count >= 3 else [1]
                for x, y in {(i % 3, i // 3) for i in range(9)}:
                    left, top = max(0, (file.width - side) * x // 2), max(0, (file.height - side) * y // 2)
                    window = Window(left, top, min(side, file.width), min(side, file.height))
                    values.append(file.read(bands, window=window).ravel())
            return RasterFacts(kind, file.count, np.concatenate(values) if values else None)
    except (DataError, RasterioError, OSError):
        return None


def geo_reference(path: Path | str) -> GeoReference | None:
    """Where a file lies on the ground; None: it does not say.

    Raises:
        DataError: it cannot be opened.
    """
    file = _open(path, str(path))
    try:
        if file.crs is None or file.transform.is_identity:
            return None
        return GeoReference(_crs_name(file.crs), tuple(file.transform)[:6])  # type: ignore[arg-type]
    finally:
        file.close()


def _crs_name(crs: Any) -> str:
    authority = crs.to_authority()
    if authority == ("EPSG", "4326"):
        return "urn:ogc:def:crs:OGC:1.3:CRS84"  # the same in GeoJSON's order, longitude first
    return f"urn:ogc:def:crs:{authority[0]}::{authority[1]}" if authority else str(crs.to_wkt())


def _options() -> dict[str, int]:
    """GDAL's settings; its own default would be a twentieth of the memory there is."""
    return {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": CACHE_BYTES}


def _open(path: Path | str, place: str) -> "DatasetReader":
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings(), rasterio.Env(**_options()):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            opened = rasterio.open(Path(path))
            file_bytes = Path(path).stat().st_size
    except (RasterioError, OSError, ValueError) as error:
        raise DataError(
            f"{place} cannot be opened as an image ({str(error).rstrip('.')}); replace the file or remove the image"
        ) from error
    if opened.driver in _OF_ONE_FILE:
        try:
            refuse_claim(place, (opened.width, opened.height), file_bytes)
        except DataError:
            opened.close()
            raise
    return opened


def _meaning(
    file: "DatasetReader", place: str, asked: tuple[int, int, int] | None
) -> tuple[list[int], NDArray[np.uint8] | None, int]:
    """The bands to read, their palette, and the bits that samples of a byte really have."""
    if not file.count:
        raise DataError(f"{place} has no bands of its own, only parts; give one of its {len(file.subdatasets)} parts")
    if asked is not None and max(asked) > file.count:
        raise DataError(f"{place} has {file.count} bands, but data.bands asks for {max(asked)}; correct the setting")
    bands = list(asked) if asked is not None else [1, 2, 3] if file.count >= 3 else [1]
    kinds = {file.dtypes[band - 1] for band in bands}
    if not kinds <= {"uint8", "uint16"}:
        other = ", ".join(sorted(kinds - {"uint8", "uint16"}))
        raise DataError(f"{place} has {other} samples, not uint8 or uint16; convert the file or remove the image")
    palette = None
    if bands == [1] and file.colorinterp[0].name == "palette":
        palette = np.zeros((65536, 3), np.uint8)
        for index, colour in file.colormap(1).items():
            palette[index] = colour[:3]
    bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8)) if kinds == {"uint8"} else 8
    return bands, palette, bits


def _to_rgb(samples: NDArray[Any], palette: NDArray[np.uint8] | None, bits: int, sample_map: SampleMap) -> Pixels:
    """(bands, h, w) as (h, w, 3)."""
    if palette is not None:
        return palette[samples[0]]
    if samples.dtype == np.uint16:
        samples = sample_map.to_8_bit(samples)
    elif bits < 8:
        samples = (samples.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
    return np.asarray(cv2.merge([samples[band] for band in (0, 1, 2)] if len(samples) == 3 else [samples[0]] * 3))


def _is_sequential(file: "DatasetReader", in_order: bool) -> bool:
    """Whether windows would be decoded from the beginning of the file, or of a large block, or too often."""
    rows, columns = file.block_shapes[0]
    if file.driver in _FROM_THE_START:
        return True
    size = math.prod((rows, columns, file.count, np.dtype(file.dtypes[0]).itemsize))
    strips = columns == file.width and rows < file.height and file.compression is not None
    # A strip of very many rows is passed on line by line, and decoded from its beginning to get at one.
    line_by_line = strips and rows == 1 and file.driver == "GTiff"
    return size > _BLOCK_BYTES or line_by_line or (strips and not in_order)
