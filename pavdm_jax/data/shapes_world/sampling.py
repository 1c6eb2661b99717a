"""Random scenes of a world, and which of them belong to the test split."""

import colorsys
import dataclasses
import zlib
from typing import Literal

import numpy as np

from pavdm_jax.data.shapes_world.motion import (
    bounding_radii,
    initial_velocities,
    positions,
    ranges,
    start_that_leads_to,
)
from pavdm_jax.data.shapes_world.scene import (
    BASE_CANVAS,
    COLORS,
    DIRECTIONS,
    KINDS,
    RADIUS_PX,
    RGB,
    SPEED_PX_PER_S,
    TEXTURES,
    Background,
    Canvas,
    Light,
    Look,
    Scene,
    Shape,
    Texture,
)
from pavdm_jax.data.shapes_world.world import SIMPLE, World
from pavdm_jax.errors import ConfigError

HELD_OUT_PERCENT = 10  # of the attribute combinations
MEETING_SECONDS = (1.0, 5.0)  # when two shapes meet, in scenes made for it
LONG_OCCLUSION = 20  # frames at 24 fps, at least, of a slow meeting: more than a chunk
ATTEMPTS = 100

Split = Literal["train", "test"]


def held_out(scene: Scene) -> bool:
    """Whether the scene belongs to the test split; the same on every machine.

    The split is by the *set* of (kind, color, size) of the scene's shapes, whatever their motion and looks. "Not used
    in training" means: no training video shows exactly this set of shapes. Each of the shapes does occur in training
    within other sets. A caption that leaves a size out also fits scenes of the other size, which may be in training:
    evaluation prompts come from `caption(..., complete=True)`.
    """
    descriptions = sorted(f"{shape.size} {shape.color} {shape.kind}" for shape in scene.shapes)
    return zlib.crc32(", ".join(descriptions).encode()) % 100 < HELD_OUT_PERCENT


def sample_scene(
    rng: np.random.Generator, canvas: Canvas = BASE_CANVAS, split: Split | None = None, world: World = SIMPLE
) -> Scene:
    """A random scene of a world; with `split`, one of the training or of the test scenes.

    The shapes' colours differ, and they do not overlap in frame 0 (in very rare draws, where no such places were found,
    they may).
    """
    if split not in (None, "train", "test"):
        raise ConfigError(f"split {split!r} is unknown; use train or test, or None for both")
    while True:
        count = 1 + rng.choice(len(world.shape_counts), p=world.shape_counts)
        colors = rng.permutation(list(COLORS))[:count]
        scene = Scene(tuple(_sample_shape(rng, str(color)) for color in colors))
        if split is None or held_out(scene) == (split == "test"):
            break
    if world != SIMPLE:
        scene = _with_looks(scene, rng, world)
    scene = _place_apart(scene, rng, canvas)
    if count > 1 and world.meetings > 0 and rng.random() < world.meetings:
        scene = _with_meeting(scene, rng, canvas, slow=bool(rng.random() < world.slow_meetings))
    return scene


def _sample_shape(rng: np.random.Generator, color: str) -> Shape:
    kind, size, speed, direction = (
        str(rng.choice(list(values))) for values in (KINDS, RADIUS_PX, SPEED_PX_PER_S, DIRECTIONS)
    )
    return Shape(kind, color, size, speed, direction, (0.5, 0.5))


# --- what no caption names --------------------------------------------------------------------------------------------


def _with_looks(scene: Scene, rng: np.random.Generator, world: World) -> Scene:
    shapes = tuple(dataclasses.replace(shape, look=_sample_look(rng, world)) for shape in scene.shapes)
    background = _sample_background(rng) if rng.random() < world.backgrounds else Background()
    light = Light()
    if rng.random() < world.lit:
        light = Light(float(rng.uniform(0.15, 0.3)), float(rng.uniform(20, 60)), float(rng.random()))
    return Scene(shapes, background, light)


def _sample_look(rng: np.random.Generator, world: World) -> Look:
    hue, scale, aspect, tilt = (float(value) for value in rng.uniform(-1, 1, 4))
    texture = Texture()
    if rng.random() < world.textured:
        kind = str(rng.choice(TEXTURES[1:]))
        contrast, angle, phase = rng.uniform((0.35, -90, 0), (0.48, 90, 1))
        texture = Texture(kind, float(contrast), float(angle), float(phase))
    return Look(hue * world.hues, 1 + scale * world.sizes, (1 + world.aspects) ** aspect, tilt * world.tilts, texture)


def _sample_background(rng: np.random.Generator) -> Background:
    """Two dark tones of neighbouring hues, darker than any shape."""
    hue, turn, angle = rng.random(), rng.uniform(-0.15, 0.15), rng.uniform(0, 360)
    dark, light = rng.uniform((0.09, 0.20), (0.17, 0.31))
    return Background(_rgb(hue, rng.uniform(0.35, 0.65), dark), _rgb(hue + turn, rng.uniform(0.3, 0.6), light), angle)


def _rgb(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * red, 255 * green, 255 * blue


# --- places -----------------------------------------------------------------------------------------------------------


def _place_apart(scene: Scene, rng: np.random.Generator, canvas: Canvas) -> Scene:
    """The scene with new random positions, if possible such that no two shapes touch in frame 0."""
    for _ in range(ATTEMPTS):
        places = rng.random((len(scene.shapes), 2))
        shapes = tuple(
            dataclasses.replace(shape, position=(float(x), float(y)))
            for shape, (x, y) in zip(scene.shapes, places, strict=True)
        )
        scene = dataclasses.replace(scene, shapes=shapes)
        if _apart(scene, canvas):
            break
    return scene


def _apart(scene: Scene, canvas: Canvas) -> bool:
    """Whether no two shapes touch in frame 0."""
    radii = bounding_radii(scene, canvas)
    centres = positions(scene, np.zeros(1), canvas)[:, 0]
    distances = np.linalg.norm(centres[:, None] - centres[None, :], axis=-1)
    return bool(np.all((distances > radii[:, None] + radii[None, :]) | np.eye(len(radii), dtype=bool)))


def _with_meeting(scene: Scene, rng: np.random.Generator, canvas: Canvas, slow: bool) -> Scene:
    """The scene with two shapes that lie over each other a few seconds after its beginning, and part again.

    In a slow meeting both are slow, the larger one is the upper one, and it hides most of the lower one over more than
    a chunk. The scene as it was, if no such motion was found.
    """
    radii = bounding_radii(scene, canvas)
    lower, upper = sorted(rng.permutation(len(scene.shapes))[:2])
    for _ in range(ATTEMPTS):
        shapes = list(scene.shapes)
        if slow:
            if radii[lower] > radii[upper]:
                shapes[lower], shapes[upper] = shapes[upper], shapes[lower]
            turns = rng.choice(list(DIRECTIONS), 2)
            for number, direction in zip((lower, upper), turns, strict=True):
                shapes[number] = dataclasses.replace(shapes[number], speed="slow", direction=str(direction))
        met = _led_together(dataclasses.replace(scene, shapes=tuple(shapes)), lower, upper, rng, canvas, slow)
        if met is not None:
            return met
    return scene


def _led_together(
    scene: Scene, lower: int, upper: int, rng: np.random.Generator, canvas: Canvas, slow: bool
) -> Scene | None:
    """The scene with the start of `lower` moved such that it meets `upper`; None where a random moment does not fit."""
    seconds = rng.uniform(*MEETING_SECONDS)
    low, reach = (of_all[lower] for of_all in ranges(scene, canvas))
    radius = bounding_radii(scene, canvas)[upper]
    place = positions(scene, np.array([seconds]), canvas, fps=1.0)[upper, 0] - low
    place = np.clip(place + rng.uniform(-0.3, 0.3, 2) * radius, 0, reach)
    start = start_that_leads_to(place, initial_velocities(scene, canvas)[lower] * seconds, reach)
    if start is None:
        return None
    shapes = list(scene.shapes)
    x, y = np.clip(start / reach, 0, 1)
    shapes[lower] = dataclasses.replace(shapes[lower], position=(float(x), float(y)))
    moved = dataclasses.replace(scene, shapes=tuple(shapes))
    if not _apart(moved, canvas):
        return None
    around = seconds * 24 + np.arange(-30, 31)
    tracks = positions(moved, around, canvas)
    mostly_hidden = np.linalg.norm(tracks[lower] - tracks[upper], axis=-1) < 0.8 * radius
    return moved if not slow or np.sum(mostly_hidden) >= LONG_OCCLUSION else None
