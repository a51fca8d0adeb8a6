"""Image files of any size: decoded whole, or read by windows where they are huge.

See ``docs/method.md``, "Huge images".
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from sniper.errors import DataError
from sniper.pixels.decode import image_header, read_image
from sniper.pixels.georeference import GeoReference
from sniper.pixels.rasters import Raster, geo_reference, has_rasterio
from sniper.pixels.spilled import SpilledPixels

log = logging.getLogger("sniper")

Pixels = NDArray[np.uint8]

EXTRA = 'pip install "sniper-detection[geotiff]"'
WHOLE_JPEG_PX = 500_000_000  # larger ones are decoded line by line, with other arithmetic for subsampled colours
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of both byte orders, and of BigTIFF
_GDAL_FORMS = ("TIFF", "JPEG2000")  # forms of many kinds, some of which Pillow cannot decode
_GROUND_SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".img"}
_GEO_KEYS = 34735  # the TIFF tag that makes a GeoTIFF


def open_pixels(
    path: Path | str,
    *,
    whole_pixels: float,
    size_wh: tuple[int, int] | None = None,
    image_id: int | None = None,
) -> Pixels | Raster | SpilledPixels:
    """The pixels of an image file, as ``read_image`` gives them; of more than ``whole_pixels``, by windows.

    JPEGs of up to 500 megapixels are decoded once, into a temporary file; other huge files are read through rasterio
    (the extra ``geotiff``), and so are small ones that Pillow cannot read, such as TIFFs of five bands or compressed
    with Zstandard. Without it huge files are decoded whole, into a temporary file, if there is memory for it.
    ``size_wh`` as for ``read_image``.

    Raises:
        DataError: as ``read_image``; or the file is huge, and there is neither rasterio nor the memory to do without.
    """
    place = str(path) if image_id is None else f"{path} (image id {image_id})"
    try:
        header = image_header(path, size_wh=size_wh, image_id=image_id)
    except DataError as error:
        return _otherwise(path, size_wh, image_id, error)
    width, height = header.size_wh
    pixels = width * height
    if pixels <= whole_pixels:
        try:
            return read_image(path, size_wh=size_wh, image_id=image_id)
        except DataError as error:
            if header.form not in _GDAL_FORMS or not has_rasterio():
                raise
            return _whole_by_gdal(path, header.orientation, image_id, error)
    jpeg = header.form == "JPEG"
    if has_rasterio() and not (jpeg and pixels <= WHOLE_JPEG_PX):
        try:
            raster = Raster(path, orientation=header.orientation, image_id=image_id)
            if not raster.is_cmyk:
                return raster
            raster.close()
        except DataError:
            if header.form in _GDAL_FORMS:  # of the others, GDAL may be built without
                raise
    _check_memory(place, pixels, 3 if jpeg else 8, jpeg)

    def decode() -> Iterator[Pixels]:
        yield read_image(path, size_wh=size_wh, image_id=image_id)

    return SpilledPixels(header.size_wh, decode, place)


def where_on_ground(path: Path | str) -> GeoReference | None:
    """Where an image file lies on the ground; None: it does not say, or rasterio is not installed.

    Raises:
        DataError: it cannot be opened.
    """
    if Path(path).suffix.lower() not in _GROUND_SUFFIXES:
        return None
    if has_rasterio():
        return geo_reference(path)
    if _is_geotiff(path):
        log.warning("%s lies on the ground, but no GeoJSON is written without rasterio: %s", path, EXTRA)
    return None


def _otherwise(
    path: Path | str, size_wh: tuple[int, int] | None, image_id: int | None, error: DataError
) -> Pixels | Raster:
    """What Pillow cannot read, by rasterio if that can."""
    try:
        with Path(path).open("rb") as file:
            tiff = file.read(4) in _TIFF
    except OSError:
        raise error from None
    if not has_rasterio():
        raise DataError(f"{error}; TIFFs of other than 1, 3 or 4 bands need {EXTRA}") if tiff else error
    try:
        raster = Raster(path, image_id=image_id)
    except DataError as other:
        raise (other if "samples" in str(other) else error) from other
    if size_wh is not None and tuple(size_wh) != raster.size_wh:
        raster.close()
        raise error
    return raster


def _whole_by_gdal(path: Path | str, orientation: int, image_id: int | None, error: DataError) -> Pixels:
    """What Pillow cannot decode, such as TIFFs compressed with Zstandard; ``error`` if GDAL cannot either."""
    try:
        raster = Raster(path, orientation=orientation, image_id=image_id)
        try:
            return raster.read(0, 0, *raster.size_wh)
        finally:
            raster.close()
    except DataError:
        raise error from None


def _check_memory(place: str, pixels: int, bytes_each: int, jpeg: bool) -> None:
    needed, free = pixels * bytes_each / 1e9, psutil.virtual_memory().available / 1e9
    way = EXTRA if not has_rasterio() else "convert it to a tiled TIFF of red, green and blue"
    if needed > 0.9 * free:
        raise DataError(
            f"{place} has {pixels / 1e6:.0f} megapixels; decoded whole it takes {needed:.1f} GB and {free:.1f} GB are "
            f"free; to read it by windows: {way}"
        )
    if not jpeg:
        log.warning(
            "%s has %.0f megapixels and is decoded whole (%.1f GB); to read it by windows: %s",
            place, pixels / 1e6, needed, way,
        )  # fmt: skip


def _is_geotiff(path: Path | str) -> bool:
    from PIL import Image, TiffImagePlugin

    try:
        with Path(path).open("rb") as file:
            image = TiffImagePlugin.TiffImageFile(file)
            return _GEO_KEYS in image.tag_v2
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
