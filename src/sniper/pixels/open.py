"""The one door to image files: decoded whole, or read by windows where they are huge.

See ``docs/method.md``, "Huge images".
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from sniper.errors import DataError
from sniper.pixels.decode import Reduction, image_header, read_image, reduced
from sniper.pixels.georeference import GeoReference
from sniper.pixels.rasters import Raster, geo_reference, has_rasterio
from sniper.pixels.sample_map import SampleMap
from sniper.pixels.spilled import SpilledPixels

log = logging.getLogger("sniper")

Pixels = NDArray[np.uint8]

EXTRA = 'pip install "sniper-detection[geotiff]"'
WHOLE_JPEG_PX = 500_000_000  # larger ones are decoded line by line, with other arithmetic for subsampled colours
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of both byte orders, and of BigTIFF
_GDAL_FORMS = ("TIFF", "JPEG2000")  # forms of many kinds, some of which Pillow cannot decode
_GROUND_SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".img"}
_GEO_KEYS = 34735  # the TIFF tag that makes a GeoTIFF


class _Asked(NamedTuple):
    """A file, and how its pixels are wanted."""

    path: Path | str
    whole_pixels: float
    reduction: Reduction
    in_order: bool
    size_wh: tuple[int, int] | None
    image_id: int | None
    sample_map: SampleMap = SampleMap()


def open_pixels(
    path: Path | str,
    *,
    whole_pixels: float,
    reduction: Reduction = 1,
    in_order: bool = True,
    size_wh: tuple[int, int] | None = None,
    image_id: int | None = None,
    sample_map: SampleMap = SampleMap(),  # noqa: B008  immutable
) -> Pixels | Raster | SpilledPixels:
    """The pixels of an image file, for training and inference: decoded whole, or by windows where it is huge.

    Up to ``whole_pixels`` they are an array, what ``read_image`` makes of the file at 1/``reduction``; a JPEG is
    counted at the size it is decoded at. More come from a source (``sniper.pixels.windowed``), always at full size.

    JPEGs of up to 500 megapixels are decoded once, into a temporary file; other huge files are read through rasterio
    (the extra ``geotiff``), and so are small ones that Pillow cannot read, such as TIFFs of five bands or compressed
    with Zstandard. Without it huge files are decoded whole, into a temporary file, if there is memory for it.

    Args:
        path: the file.
        whole_pixels: most pixels that are held in memory.
        reduction: as for ``read_image``.
        in_order: windows will be read row by row; if not, compressed strips are decoded once, into a temporary file.
        size_wh: the annotated width and height, as for ``read_image``.
        image_id: named in errors.
        sample_map: how samples become 8-bit colours. Bands are chosen in TIFF and JPEG 2000 files.

    Raises:
        DataError: as ``read_image``; or the file lacks the bands that are asked for, or is huge, and there is neither
            rasterio nor the memory to do without.
    """
    asked = _Asked(path, whole_pixels, reduction, in_order, size_wh, image_id, sample_map)
    if sample_map.bands is not None:
        return _chosen_bands(asked)
    if size_wh is not None and size_wh[0] * size_wh[1] <= whole_pixels:
        return _read_whole(asked)  # reads the header itself
    try:
        header = image_header(path, size_wh=size_wh, image_id=image_id)
    except DataError as error:
        return _by_gdal(asked, error)
    width, height = header.size_wh
    pixels, jpeg = width * height, header.form == "JPEG"
    if pixels <= whole_pixels * (reduction**2 if jpeg else 1):
        return _read_whole(asked)
    if has_rasterio() and not (jpeg and pixels <= WHOLE_JPEG_PX):
        try:
            raster = _opened(asked, header.orientation)
            if not raster.is_cmyk:
                return raster
            raster.close()
        except DataError:
            if header.form in _GDAL_FORMS:  # of the others, GDAL may be built without
                raise
    place = _name(path, image_id)
    _check_memory(place, pixels, 3 if jpeg else 8, jpeg)

    def decode() -> Iterator[Pixels]:
        yield read_image(path, size_wh=size_wh, image_id=image_id, sample_map=sample_map)

    return SpilledPixels(header.size_wh, decode, place)


def has_random_access(path: Path | str) -> bool:
    """Whether any window of a huge file can be read without decoding what lies before it. Decodes nothing itself."""
    if not has_rasterio():
        return False
    try:
        raster = Raster(path, in_order=False)
    except DataError:
        return False
    try:
        return not raster.is_spilled and not raster.is_cmyk
    finally:
        raster.close()


def image_size(path: Path | str, *, image_id: int | None = None) -> tuple[int, int]:
    """Width and height of an image file after EXIF orientation, from its header alone.

    Raises:
        DataError: the file is missing, empty or no image.
    """
    try:
        return image_header(path, image_id=image_id).size_wh
    except DataError as error:
        raster = _raster(_Asked(path, 0, 1, True, None, image_id), error)
        raster.close()
        return raster.size_wh


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


def _name(path: Path | str, image_id: int | None) -> str:
    return str(path) if image_id is None else f"{path} (image id {image_id})"


def _read_whole(asked: _Asked) -> Pixels | Raster:
    try:
        return read_image(
            asked.path,
            reduction=asked.reduction,
            size_wh=asked.size_wh,
            image_id=asked.image_id,
            sample_map=asked.sample_map,
        )
    except DataError as error:
        return _by_gdal(asked, error)


def _by_gdal(asked: _Asked, error: DataError) -> Pixels | Raster:
    """What Pillow cannot open or decode, such as five bands or Zstandard; ``error`` if GDAL cannot either."""
    return _whole_or_windows(asked, _raster(asked, error))


def _opened(asked: _Asked, orientation: int) -> Raster:
    return Raster(
        asked.path,
        orientation=orientation,
        in_order=asked.in_order,
        image_id=asked.image_id,
        sample_map=asked.sample_map,
    )


def _chosen_bands(asked: _Asked) -> Pixels | Raster:
    """The file with the bands that are asked for as its colours."""
    try:
        header = image_header(asked.path, size_wh=asked.size_wh, image_id=asked.image_id)
    except DataError:
        header = None  # of a kind that Pillow does not know
    place = _name(asked.path, asked.image_id)
    if header is not None and header.form not in _GDAL_FORMS:
        raise DataError(f"{place} is {header.form}, but data.bands chooses bands of TIFF and JPEG 2000 files; unset it")
    if not has_rasterio():
        raise DataError(f"{place}: data.bands needs {EXTRA}")
    raster = _opened(asked, 1 if header is None else header.orientation)
    if asked.size_wh is not None and tuple(asked.size_wh) != raster.size_wh:
        raster.close()
        (width, height), (wide, high) = raster.size_wh, asked.size_wh
        raise DataError(
            f"{place} is {width}x{height} px, but annotated as {wide}x{high} px; use the image that was annotated, or "
            "correct the size in the annotations"
        )
    return _whole_or_windows(asked, raster)


def _whole_or_windows(asked: _Asked, raster: Raster) -> Pixels | Raster:
    width, height = raster.size_wh
    if width * height > asked.whole_pixels:
        return raster
    try:
        return reduced(raster.read(0, 0, width, height), asked.reduction)
    finally:
        raster.close()


def _raster(asked: _Asked, error: DataError) -> Raster:
    """The file through rasterio, after Pillow raised ``error``."""
    try:
        header = image_header(asked.path, size_wh=asked.size_wh, image_id=asked.image_id)
    except DataError:
        header = None  # of a kind that Pillow does not know
    if header is not None and header.form not in _GDAL_FORMS:
        raise error
    if not has_rasterio():
        unknown_tiff = header is None and _starts_as_tiff(asked.path)
        raise DataError(f"{error}; TIFFs of other than 1, 3 or 4 bands need {EXTRA}") if unknown_tiff else error
    orientation = 1 if header is None else header.orientation
    try:
        raster = _opened(asked, orientation)
    except DataError as other:
        raise (other if header is None and "samples" in str(other) else error) from other
    if asked.size_wh is not None and tuple(asked.size_wh) != raster.size_wh:
        raster.close()
        raise error
    return raster


def _starts_as_tiff(path: Path | str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(4) in _TIFF
    except (OSError, ValueError):
        return False


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
