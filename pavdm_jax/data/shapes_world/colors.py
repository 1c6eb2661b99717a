"""Named colours as ranges of hues that lie apart, exact colours within them, and the name of a measured colour."""

import colorsys

import numpy as np

from pavdm_jax.data.shapes_world.scene import COLORS, RGB, Shape

HUE_HALF_RANGE = {"red": 7, "orange": 6, "yellow": 5, "green": 18, "cyan": 9, "blue": 13, "magenta": 14}
"""Degrees to either side of a palette colour's hue; at least 13 degrees lie between the ranges of two colours."""

WHITE_TINT = (0.04, 0.0, -0.06)
"""What the warmest white adds to red, green and blue, relative to them; the coolest subtracts it."""

WHITE_SATURATION = 0.4
"""Colours of less are called white: white has 0.1 at most, all others 0.75 and more where nothing is mixed in."""

_HUES = {name: colorsys.rgb_to_hsv(*(value / 255 for value in COLORS[name]))[0] * 360 for name in HUE_HALF_RANGE}


def exact_color(shape: Shape) -> RGB:
    """The colour of a shape where it has no texture, in full light."""
    palette = COLORS[shape.color]
    if shape.look.hue == 0:
        return palette
    if shape.color == "white":
        red, green, blue = (v * (1 + shape.look.hue * tint) for v, tint in zip(palette, WHITE_TINT, strict=True))
        return red, green, blue
    _, saturation, value = colorsys.rgb_to_hsv(*(v / 255 for v in palette))
    degrees = _HUES[shape.color] + shape.look.hue * HUE_HALF_RANGE[shape.color]
    red, green, blue = colorsys.hsv_to_rgb(degrees / 360 % 1, saturation, value)
    return 255 * red, 255 * green, 255 * blue


def hue_and_saturation(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hue in degrees, 0..360, and HSV saturation, 0..1, of colours `[..., 3]`; 0 for black."""
    rgb = np.asarray(rgb, np.float32)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = rgb.max(axis=-1)
    spread = value - rgb.min(axis=-1)
    safe = np.where(spread > 0, spread, 1)
    sector = np.where(
        value == red, (green - blue) / safe, np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    return np.where(spread > 0, np.mod(sector * 60, 360), 0), spread / np.where(value > 0, value, 1)


def color_index(rgb: np.ndarray) -> np.ndarray:
    """The number in `COLORS` of the colour that each of `[..., 3]` is nearest to: white by its saturation, the others
    by the distance of hues beyond the ends of their ranges."""
    hue, saturation = hue_and_saturation(rgb)
    names = list(COLORS)
    beyond = np.stack(
        [np.abs(np.mod(hue - _HUES[n] + 180, 360) - 180) - HUE_HALF_RANGE[n] for n in names if n != "white"], axis=-1
    )
    numbers = np.array([names.index(name) for name in names if name != "white"])
    return np.where(saturation < WHITE_SATURATION, names.index("white"), numbers[np.argmin(beyond, axis=-1)])


def color_name(rgb: np.ndarray) -> str:
    """The name of one colour `[3]`."""
    return list(COLORS)[int(color_index(np.asarray(rgb)))]
