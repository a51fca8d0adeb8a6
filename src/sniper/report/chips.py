"""The chips of an image, drawn on it, and the cut chips on one sheet."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.chips.negative import Proposals, proposals_shown
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.flags import REGION_FLAGS, any_flag
from sniper.data.table import AnnotationTable
from sniper.report.layout import Key, fit, framed, grid, heading, legend, stack
from sniper.report.marks import Style, draw_boxes, text_px_for, thickness_for
from sniper.report.palette import NEGATIVE, QUIET, WHITE, Color, Pixels, level_color
from sniper.report.shade import covered, dim

_DARK: Color = (92, 99, 107)  # behind white marks in a legend
_MAX_FALSE_POSITIVES = 40  # the best; more would hide the image


class ImageChips(NamedTuple):
    """The chips of one image, in its own pixels. K chips, N objects of the image, rows of ``valid`` are chips."""

    windows_xyxy: NDArray[np.float64]  # (K, 4) what each chip shows, original px
    level: NDArray[np.int16]  # (K,)
    kind: NDArray[np.int8]  # (K,) a ChipKind each
    scale: NDArray[np.float64]  # (K,) network px per original px
    range_px: NDArray[np.float32]  # (K, 2)
    network_px: NDArray[np.int64]  # (K,) pixels of the padded input
    valid: NDArray[np.bool_]  # (K, N) the object is learned in the chip
    boxes_xyxy: NDArray[np.float32]  # (N, 4) original px
    regions: NDArray[np.bool_]  # (N,) crowds and group-ofs


def image_chips(table: AnnotationTable, image_row: int, chips: ChipTable) -> ImageChips:
    """Select the chips of one image and bring them to its pixels.

    Raises:
        IndexError: ``image_row`` is no row of ``table``.
    """
    if not 0 <= image_row < len(table):
        raise IndexError(f"image row {image_row} is not in a table of {len(table)} images")
    rows = np.flatnonzero(chips.image_index == image_row)
    first, last = table.offsets[image_row], table.offsets[image_row + 1]
    valid = np.zeros((len(rows), last - first), dtype=np.bool_)
    starts, ends = chips.object_offsets[rows], chips.object_offsets[rows + 1]
    if len(rows):
        flat = chips.object_rows[starts[0] : ends[-1]]  # rows of one image follow each other
        valid[np.repeat(np.arange(len(rows)), ends - starts), flat - first] = True
    return ImageChips(
        chips.windows_xyxy(rows),
        chips.level[rows],
        chips.kind[rows],
        chips.scale[rows],
        chips.range_px[rows],
        chips.size_wh[rows].astype(np.int64).prod(axis=1),
        valid,
        table.boxes_xyxy[first:last],
        any_flag(table.flags[first:last], REGION_FLAGS),
    )


def _range_text(range_px: NDArray[np.floating]) -> str:
    low, high = float(range_px[0]), float(range_px[1])
    if np.isinf(high):
        return f"objects of {low:.0f} px and more" if low > 0 else "objects of all sizes"
    return f"objects under {high:.0f} px" if low <= 0 else f"objects of {low:.0f} to {high:.0f} px"


def plural(number: int, word: str) -> str:
    """A number with its word: "1 chip", "1,200 chips"."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _draw_chip_lines(picture: Pixels, chips: ImageChips, windows: NDArray[np.float64], level: int, line: int) -> None:
    here = chips.level == level
    negative = here & (chips.kind == ChipKind.NEGATIVE)
    # Neighbours share borders: every other chip is drawn a little further inside, so that each can be followed.
    styles: tuple[Style, Style] = ("solid", "dashed")
    for part, style in zip((here & ~negative, negative), styles, strict=True):
        rows = np.flatnonzero(part)
        for turn in (0, 1):
            chosen = windows[rows[turn::2]]
            color = level_color(level) if style == "solid" else NEGATIVE
            draw_boxes(picture, chosen, color, thickness=line, style=style, inset=2 * turn)


def _proposals_of(
    own: ImageChips, image_row: int, proposals: Proposals | None, levels: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(N, 4) proposals that the negative chips among ``levels`` (K,) hold, best first, original px."""
    if proposals is None:
        return np.zeros((0, 4), np.float32)
    boxes = proposals.boxes_xyxy[proposals.offsets[image_row] : proposals.offsets[image_row + 1]]
    held = np.zeros(len(boxes), np.bool_)
    for k in np.flatnonzero(levels & (own.kind == ChipKind.NEGATIVE)):
        held |= proposals_shown(proposals, image_row, own.windows_xyxy[k], own.range_px[k])
    scores = proposals.scores[proposals.offsets[image_row] : proposals.offsets[image_row + 1]]
    return np.asarray(boxes[held][np.argsort(-scores[held], kind="stable")])


def draw_chips(
    pixels: Pixels,
    table: AnnotationTable,
    image_row: int,
    chips: ChipTable,
    *,
    proposals: Proposals | None = None,
    max_px: int = 1600,
) -> Pixels:
    """All chips of an image on it, one colour a level, with a legend below.

    ``pixels`` is the whole image, (H, W, 3) uint8 RGB, at any size; row ``image_row`` of ``table`` tells its true
    one. An object is drawn solid in the colour of the finest level that learns it, or dashed in white when no chip
    does; crowd regions are hatched. What only coarse chips cover is darker, and what none covers is darker still.
    Negative chips have dashed borders in a colour of their own, which the best of the ``proposals`` that they hold have
    too. The long side of the drawing is at most ``max_px``.
    """
    own = image_chips(table, image_row, chips)
    shown, scale = _shown(pixels, table, image_row, max_px)
    windows, boxes = own.windows_xyxy * scale, own.boxes_xyxy * scale
    line, px = thickness_for(*shown.shape[:2]), text_px_for(*shown.shape[:2])
    seen = covered(windows, *shown.shape[:2])
    finest = covered(windows[own.level == own.level.min()], *shown.shape[:2]) if len(windows) else seen
    dim(shown, seen & ~finest, 0.76, 0.7)
    dim(shown, ~seen, 0.45, 0.3)
    learned = own.valid.any(axis=0)
    ignored = ~learned & ~own.regions
    draw_boxes(shown, boxes[own.regions], WHITE, thickness=1, style="hatched")
    draw_boxes(shown, boxes[ignored], WHITE, thickness=1, style="dashed")
    false_positives = _proposals_of(own, image_row, proposals, np.ones(len(own.level), np.bool_))
    draw_boxes(shown, false_positives[:_MAX_FALSE_POSITIVES] * scale, NEGATIVE, thickness=1)
    keys, drawn = [], np.zeros(len(boxes), dtype=np.bool_)
    for level in np.unique(own.level):
        at = own.level == level
        valid = own.valid[at].any(axis=0)
        color = level_color(int(level))
        at &= own.kind != ChipKind.NEGATIVE
        draw_boxes(shown, boxes[valid & ~drawn], color, thickness=max(1, line - 1))
        drawn |= valid
        first = np.flatnonzero(own.level == level)[0]
        text = f"level {level}: scale {own.scale[first]:.2f}, {_range_text(own.range_px[first])}; "
        keys.append(Key(color, text + f"{plural(int(at.sum()), 'chip')}, {valid.sum():,} learned", thickness=3))
    for level in np.unique(own.level)[::-1]:
        _draw_chip_lines(shown, own, windows, int(level), line + 2)
    keys += _common_keys(own, int(ignored.sum()), len(false_positives))
    return framed(stack([shown, legend(shown.shape[1], keys, px)]), px)


def _common_keys(own: ImageChips, ignored: int, false_positives: int) -> list[Key]:
    keys = []
    if (own.kind == ChipKind.NEGATIVE).any():
        told = plural(int((own.kind == ChipKind.NEGATIVE).sum()), "negative chip")
        told += f" around {plural(false_positives, 'false positive')}" if false_positives else ""
        keys.append(Key(NEGATIVE, told, "dashed", 3))
    if ignored:
        keys.append(Key(WHITE, f"{ignored:,} ignored: learned in no chip", "dashed", 2, _DARK))
    if own.regions.any():
        keys.append(Key(WHITE, plural(int(own.regions.sum()), "crowd region"), "hatched", 2, _DARK))
    return keys if len(own.level) else [Key(QUIET, "no chips"), *keys]


def draw_levels(
    pixels: Pixels,
    table: AnnotationTable,
    image_row: int,
    chips: ChipTable,
    *,
    proposals: Proposals | None = None,
    panel_px: int = 800,
) -> Pixels:
    """One panel a level: its chips, what they learn (solid, in colour) and what they ignore (dashed, white).

    Ignored is what has its centre in a chip of the level and is learned by none of that level. Arguments as
    for ``draw_chips``; the long side of a panel is at most ``panel_px``.
    """
    own = image_chips(table, image_row, chips)
    base, scale = _shown(pixels, table, image_row, panel_px)
    windows, boxes = own.windows_xyxy * scale, own.boxes_xyxy * scale
    line, px = thickness_for(*base.shape[:2]), text_px_for(*base.shape[:2])
    panels = []
    for level in np.unique(own.level):
        at = own.level == level
        panel = base.copy()
        dim(panel, ~covered(windows[at], *panel.shape[:2]), 0.45, 0.3)
        valid = own.valid[at].any(axis=0)
        ignored = ~valid & ~own.regions & _centred_inside(boxes, windows[at])
        draw_boxes(panel, boxes[own.regions], WHITE, thickness=1, style="hatched")
        draw_boxes(panel, boxes[ignored], WHITE, thickness=1, style="dashed")
        draw_boxes(panel, boxes[valid], level_color(int(level)), thickness=max(1, line - 1))
        false_positives = _proposals_of(own, image_row, proposals, at)[:_MAX_FALSE_POSITIVES]
        draw_boxes(panel, false_positives * scale, NEGATIVE, thickness=1)
        _draw_chip_lines(panel, own, windows, int(level), line + 1)
        title = f"Level {level}: scale {own.scale[at][0]:.2f}, {_range_text(own.range_px[at][0])}"
        megapixels = own.network_px[at].sum() / 1e6
        hard = int((own.kind[at] == ChipKind.NEGATIVE).sum())
        told = f"{plural(int(at.sum()), 'chip')} ({megapixels:.1f} Mpx), " + (f"{hard} negative, " if hard else "")
        told += f"{valid.sum():,} learned, {ignored.sum():,} ignored"
        panels.append(stack([heading(panel.shape[1], title, told, px), panel]))
    if not panels:
        panels = [stack([heading(base.shape[1], "No chips", "", px), base])]
    wide = base.shape[1] > 1.6 * base.shape[0]
    sheet = grid(panels, columns=1 if wide else min(len(panels), 3 if len(panels) != 4 else 2), gap=px)
    return framed(sheet, px)


def _centred_inside(boxes: NDArray[np.floating], windows: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N,) the centre of the box lies in some window."""
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    inside = (centre >= windows[None, :, :2]) & (centre < windows[None, :, 2:])
    return np.asarray(np.any(np.all(inside, axis=2), axis=1), dtype=np.bool_)


def _shown(pixels: Pixels, table: AnnotationTable, image_row: int, max_px: int) -> tuple[Pixels, float]:
    """The image for showing and its px per original px."""
    shown, _ = fit(pixels, at_least=min(640, max_px), at_most=max_px)
    return shown, shown.shape[1] / float(table.sizes_wh[image_row, 0])
