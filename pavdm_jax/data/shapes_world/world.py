"""What scenes of the shapes world are drawn from: settings, and two named ones."""

from dataclasses import dataclass, fields

from pavdm_jax.errors import ConfigError


@dataclass(frozen=True)
class World:
    """Which attributes vary, and how often. Those up to `lit` are named in no caption and constant in a video, but for
    the light, which changes slowly."""

    hues: float = 0.0  # of a named colour's range of hues, the part that exact colours come from, 0..1
    sizes: float = 0.0  # an exact size differs from the named one by up to this fraction; below 0.2 they stay apart
    aspects: float = 0.0  # width over height is at most 1 + this, at least 1 / (1 + this)
    tilts: float = 0.0  # degrees to either side
    textured: float = 0.0  # probability that a shape has stripes, dots or an outline
    backgrounds: float = 0.0  # probability of a coloured, graded background
    lit: float = 0.0  # probability that the light changes
    kinds_unnamed: float = 0.0  # probability that a caption says "shape" for every kind
    colors_unnamed: float = 0.0  # probability that a caption leaves out all colours
    shape_counts: tuple[float, float, float] = (0.5, 0.35, 0.15)  # probabilities of one, two, three shapes
    meetings: float = 0.0  # of scenes with several shapes, those made so that two of them meet in the first seconds
    slow_meetings: float = 0.0  # of these, those in which one passes so slowly that it hides the other over a chunk

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("tilts", "shape_counts") and not 0 <= value <= 1:
                raise ConfigError(f"{field.name} of the shapes world must lie within 0..1, not {value}")
        if self.sizes >= 0.2:
            raise ConfigError(f"sizes of the shapes world must be below 0.2, or small and large meet; not {self.sizes}")
        if not 0 <= self.tilts <= 30:
            raise ConfigError(f"tilts of the shapes world must lie within 0..30 degrees, not {self.tilts}")
        if not min(self.shape_counts) >= 0 or not abs(sum(self.shape_counts) - 1) <= 1e-9:
            raise ConfigError(f"shape_counts must be probabilities that sum to 1, not {self.shape_counts}")
        if self.kinds_unnamed + self.colors_unnamed > 1:
            raise ConfigError(
                f"kinds_unnamed and colors_unnamed exclude each other: {self.kinds_unnamed} and "
                f"{self.colors_unnamed} sum to more than 1"
            )


SIMPLE = World()
"""Plain shapes of exact palette colours and sizes on one dark background."""

HIDDEN = World(
    hues=1.0,
    sizes=0.12,
    aspects=0.15,
    tilts=18.0,
    textured=0.6,
    backgrounds=1.0,
    lit=0.4,
    kinds_unnamed=0.08,
    colors_unnamed=0.08,
    shape_counts=(0.35, 0.4, 0.25),
    meetings=0.5,
    slow_meetings=0.5,
)
"""With attributes that no caption names."""

WORLDS = {"simple": SIMPLE, "hidden": HIDDEN}


def named_world(name: str) -> World:
    """A world by its name.

    Raises:
      ConfigError: there is no such world.
    """
    if name not in WORLDS:
        raise ConfigError(f"there is no shapes world {name!r}; use {' or '.join(WORLDS)}")
    return WORLDS[name]
