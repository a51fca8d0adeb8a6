"""One set of colours for every picture: told apart by colour-blind eyes, readable on photos and on white."""

from colorsys import hls_to_rgb
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Color: TypeAlias = tuple[int, int, int]  # RGB, 0..255
Pixels: TypeAlias = NDArray[np.uint8]  # (H, W, 3) RGB

ORANGE: Color = (232, 89, 12)
BLUE: Color = (45, 165, 245)
YELLOW: Color = (242, 194, 48)
VIOLET: Color = (155, 107, 223)
GREEN: Color = (32, 167, 132)
PINK: Color = (222, 110, 175)

INK: Color = (31, 35, 40)
QUIET: Color = (101, 109, 118)
RULE: Color = (208, 215, 222)
PAPER: Color = (255, 255, 255)
WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)

# What a detection or a true object turned out to be. Blue, yellow and orange stay apart in every kind of colour
# blindness; shape (solid, dashed) says the same again.
FOUND, MISSED, FALSE_POSITIVE = BLUE, YELLOW, ORANGE

NEGATIVE: Color = (214, 31, 92)  # chips that show no object but what is taken for one

_LEVELS = (ORANGE, BLUE, YELLOW, VIOLET, GREEN, PINK)
_CLASSES = (BLUE, YELLOW, ORANGE, GREEN, PINK, VIOLET)


def _more(number: int) -> Color:
    """Colours after the chosen ones: steps of the golden angle around the hues, light enough for photos."""
    hue = number * 0.38196601 % 1
    red, green, blue = hls_to_rgb(hue, (0.62, 0.74, 0.52)[number % 3], (0.85, 0.75, 0.8)[number % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def level_color(level: int) -> Color:
    """The colour of a pyramid level, 0 the finest."""
    return _LEVELS[level] if level < len(_LEVELS) else _more(level)


def class_color(label: int) -> Color:
    """The colour of a class index, the same in every picture."""
    return _CLASSES[label] if 0 <= label < len(_CLASSES) else _more(label)


def ink_on(color: Color) -> Color:
    """Black or white, whichever is easier to read on ``color``."""
    red, green, blue = color
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE


def hexadecimal(color: Color) -> str:
    """``#rrggbb``, for charts and pages."""
    return "#{:02x}{:02x}{:02x}".format(*color)
