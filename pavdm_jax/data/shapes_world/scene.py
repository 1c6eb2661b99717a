"""The words of the shapes world with their values, and the scenes that are made of them."""

from dataclasses import dataclass

from pavdm_jax.errors import ConfigError

Canvas = int | tuple[int, int]
"""Side of a square video, or (height, width), in pixels."""

RGB = tuple[float, float, float]
"""Red, green and blue, 0..255."""

BASE_CANVAS = 64  # pixels; the smallest canvas, and the one at which the lengths below hold
KINDS = ("circle", "square", "triangle")
COLORS = {
    "red": (225, 30, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 235),
    "yellow": (245, 230, 60),
    "magenta": (215, 45, 210),
    "cyan": (50, 215, 225),
    "white": (240, 240, 240),
    "orange": (245, 135, 20),
}
BACKGROUND = (18, 18, 24)
RADIUS_PX = {"small": 6.5, "large": 11.0}  # half of a shape's extent
SPEED_PX_PER_S = {"slow": 12.0, "fast": 30.0}
_DIAGONAL = 0.5**0.5
DIRECTIONS = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up left": (-_DIAGONAL, -_DIAGONAL),
    "up right": (_DIAGONAL, -_DIAGONAL),
    "down left": (-_DIAGONAL, _DIAGONAL),
    "down right": (_DIAGONAL, _DIAGONAL),
}
TEXTURES = ("plain", "stripes", "dots", "outline")


@dataclass(frozen=True)
class Texture:
    """A darker tone on a part of a shape, which moves with it."""

    kind: str = "plain"  # one of TEXTURES
    contrast: float = 0.0  # the darker tone is 1 - contrast times the shape's colour
    angle: float = 0.0  # degrees, of stripes and of the grid of dots, relative to the shape
    phase: float = 0.0  # of a period, 0..1

    def __post_init__(self) -> None:
        if self.kind not in TEXTURES:
            raise ConfigError(f"texture {self.kind!r} is not in the shapes world; use {', '.join(TEXTURES)}")


@dataclass(frozen=True)
class Look:
    """What no caption says of a shape; constant in a video. By default, the plain shape of palette and size names."""

    hue: float = 0.0  # of the way from the middle of the named colour's range of hues to its ends, -1..1
    scale: float = 1.0  # of the named size's radius
    aspect: float = 1.0  # width over height before the tilt; the area is that of 1
    tilt: float = 0.0  # degrees, clockwise as seen
    texture: Texture = Texture()


@dataclass(frozen=True)
class Shape:
    """One moving shape.

    `speed` and `direction` are those of frame 0. `position` is the centre at frame 0, (x, y), each as a fraction 0..1
    of the range that the centre can reach: 0 touches the left or upper border, 1 the right or lower one; it means the
    same on every canvas.
    """

    kind: str
    color: str
    size: str
    speed: str
    direction: str
    position: tuple[float, float]
    look: Look = Look()

    def __post_init__(self) -> None:
        known = {"kind": KINDS, "color": COLORS, "size": RADIUS_PX, "speed": SPEED_PX_PER_S, "direction": DIRECTIONS}
        for name, values in known.items():
            value = getattr(self, name)
            if value not in values:
                raise ConfigError(f"shape {name} {value!r} is not in the shapes world; use {', '.join(values)}")
        if not all(0.0 <= fraction <= 1.0 for fraction in self.position):
            raise ConfigError(f"position {self.position} is not within 0..1")

    @property
    def radius(self) -> float:
        """Half of the extent in pixels of a 64-pixel canvas: the geometric mean of half width and half height."""
        return RADIUS_PX[self.size] * self.look.scale


@dataclass(frozen=True)
class Background:
    """A linear gradient from `first` to `second` across the canvas, towards `angle` (degrees, clockwise from right)."""

    first: RGB = BACKGROUND
    second: RGB = BACKGROUND
    angle: float = 0.0


@dataclass(frozen=True)
class Light:
    """A slow wave of brightness, of everything seen: 1 at its brightest, 1 - depth at its darkest."""

    depth: float = 0.0
    period: float = 1.0  # seconds
    phase: float = 0.0  # of a period, 0..1


@dataclass(frozen=True)
class Scene:
    """Shapes in painter's order: later ones lie over earlier ones."""

    shapes: tuple[Shape, ...]
    background: Background = Background()
    light: Light = Light()


def canvas_size(canvas: Canvas) -> tuple[int, int, float]:
    """Height and width in pixels, and the factor by which the world's lengths grow on this canvas.

    Raises:
      ConfigError: the canvas is smaller than 64 pixels.
    """
    height, width = (canvas, canvas) if isinstance(canvas, int) else canvas
    if min(height, width) < BASE_CANVAS:
        raise ConfigError(
            f"canvas {height}x{width} is too small for the shapes world; use {BASE_CANVAS} pixels or more"
        )
    return height, width, min(height, width) / BASE_CANVAS
