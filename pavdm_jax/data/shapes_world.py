"""The shapes world: a procedural source of videos whose ground truth is known for every frame.

One to three coloured shapes move over a plain dark background at constant velocity and bounce off the borders without
loss. All positions are in closed form, so any frame of an endless video is computed directly. Lengths are pixels of a
64-pixel canvas and scale with the shorter side of a larger one. Coordinates are (x, y) in pixels, x to the right and y
downwards; the centre of pixel [row, column] lies at (column + 0.5, row + 0.5).

What a description says, a caption can say, and `parse_caption` reads it back; so a generated video can be scored
against its prompt alone.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pavdm_jax.errors import ConfigError

Canvas = int | tuple[int, int]
"""Side of a square video, or (height, width), in pixels."""

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
SHAPE_COUNT_PROBABILITIES = (0.5, 0.35, 0.15)  # of scenes with one, two, three shapes
HELD_OUT_PERCENT = 10  # of the attribute combinations
SQUARE_HALF_SIDE = 0.886  # of the radius: a square of the circle's area
TRIANGLE_HALF_HEIGHT = 0.9  # of the radius; its base is two radii long, so it is nearly equilateral


# --- scenes -----------------------------------------------------------------------------------------------------------


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

    def __post_init__(self) -> None:
        known = {"kind": KINDS, "color": COLORS, "size": RADIUS_PX, "speed": SPEED_PX_PER_S, "direction": DIRECTIONS}
        for name, values in known.items():
            value = getattr(self, name)
            if value not in values:
                raise ConfigError(f"shape {name} {value!r} is not in the shapes world; use {', '.join(values)}")
        if not all(0.0 <= fraction <= 1.0 for fraction in self.position):
            raise ConfigError(f"position {self.position} is not within 0..1")


@dataclass(frozen=True)
class Scene:
    """Shapes in painter's order: later ones lie over earlier ones."""

    shapes: tuple[Shape, ...]


Split = Literal["train", "test"]


def held_out(scene: Scene) -> bool:
    """Whether the scene belongs to the test split; the same on every machine.

    The split is by the *set* of (kind, color, size) of the scene's shapes, whatever their motion. "Not used in
    training" means: no training video shows exactly this set of shapes. Each of the shapes does occur in training
    within other sets. A caption that leaves a size out also fits scenes of the other size, which may be in training:
    evaluation prompts come from `caption(..., complete=True)`.
    """
    descriptions = sorted(f"{shape.size} {shape.color} {shape.kind}" for shape in scene.shapes)
    return zlib.crc32(", ".join(descriptions).encode()) % 100 < HELD_OUT_PERCENT


def sample_scene(rng: np.random.Generator, canvas: Canvas = BASE_CANVAS, split: Split | None = None) -> Scene:
    """A random scene; with `split`, one of the training or of the test scenes.

    The shapes' colours differ, and they do not overlap in frame 0 (in very rare draws, where no such places were found,
    they may).
    """
    if split not in (None, "train", "test"):
        raise ConfigError(f"split {split!r} is unknown; use train or test, or None for both")
    while True:
        count = 1 + rng.choice(len(SHAPE_COUNT_PROBABILITIES), p=SHAPE_COUNT_PROBABILITIES)
        colors = rng.permutation(list(COLORS))[:count]
        scene = Scene(tuple(_sample_shape(rng, str(color)) for color in colors))
        if split is None or held_out(scene) == (split == "test"):
            return _place_apart(scene, rng, canvas)


def _sample_shape(rng: np.random.Generator, color: str) -> Shape:
    kind, size, speed, direction = (
        str(rng.choice(list(values))) for values in (KINDS, RADIUS_PX, SPEED_PX_PER_S, DIRECTIONS)
    )
    return Shape(kind, color, size, speed, direction, (0.5, 0.5))


def _place_apart(scene: Scene, rng: np.random.Generator, canvas: Canvas, attempts: int = 100) -> Scene:
    """The scene with new random positions, if possible such that no two shapes touch in frame 0."""
    radii = _radii(scene, canvas)
    enough = radii[:, None] + radii[None, :]
    for _ in range(attempts):
        places = rng.random((len(scene.shapes), 2))
        scene = Scene(
            tuple(
                Shape(s.kind, s.color, s.size, s.speed, s.direction, (float(x), float(y)))
                for s, (x, y) in zip(scene.shapes, places, strict=True)
            )
        )
        centres = positions(scene, np.zeros(1), canvas)[:, 0]
        apart = np.linalg.norm(centres[:, None] - centres[None, :], axis=-1) > enough
        if np.all(apart | np.eye(len(radii), dtype=bool)):
            break
    return scene


# --- motion -----------------------------------------------------------------------------------------------------------


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


def positions(scene: Scene, frame_indices: np.ndarray, canvas: Canvas = BASE_CANVAS, fps: float = 24.0) -> np.ndarray:
    """Centres `[n_shapes, f, 2]` as (x, y) in pixels at the given frames (any numbers, not only consecutive ones)."""
    unfolded, reach, radii = _unfolded(scene, frame_indices, canvas, fps)
    phase = np.mod(unfolded, 2 * reach)
    return radii[:, None, None] + np.minimum(phase, 2 * reach - phase)


def _radii(scene: Scene, canvas: Canvas) -> np.ndarray:
    return canvas_size(canvas)[2] * np.array([RADIUS_PX[shape.size] for shape in scene.shapes])


def _initial_velocities(scene: Scene, canvas: Canvas) -> np.ndarray:
    directions = np.array([DIRECTIONS[shape.direction] for shape in scene.shapes])
    speeds = np.array([SPEED_PX_PER_S[shape.speed] for shape in scene.shapes])
    return canvas_size(canvas)[2] * speeds[:, None] * directions


def _unfolded(
    scene: Scene, frame_indices: np.ndarray, canvas: Canvas, fps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres `[n, f, 2]` unfolded, from the reachable corner; the reach `[n, 1, 2]`; the radii `[n]`."""
    height, width, _ = canvas_size(canvas)
    radii = _radii(scene, canvas)
    reach = np.array([width, height])[None, :] - 2 * radii[:, None]
    start = np.array([shape.position for shape in scene.shapes]) * reach
    seconds = np.asarray(frame_indices, np.float64) / fps
    travelled = _initial_velocities(scene, canvas)[:, None, :] * seconds[None, :, None]
    return start[:, None, :] + travelled, reach[:, None, :], radii


# --- pixels -----------------------------------------------------------------------------------------------------------


def signed_distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float | np.floating) -> np.ndarray:
    """Distance in pixels from the points (x, y), relative to the shape's centre, to its outline; negative inside."""
    if kind == "circle":
        return np.sqrt(x * x + y * y) - radius
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) - SQUARE_HALF_SIDE * radius
    half_height = TRIANGLE_HALF_HEIGHT * radius
    leg = np.hypot(radius, 2 * half_height)
    beside_leg = (2 * half_height * np.abs(x) - radius * (y + half_height)) / leg
    return np.maximum(beside_leg, y - half_height)


def render(
    scene: Scene, num_frames: int, canvas: Canvas = BASE_CANVAS, fps: float = 24.0, first_frame: int = 0
) -> np.ndarray:
    """The frames `first_frame` to `first_frame + num_frames` as uint8 `[f, h, w, 3]`, with anti-aliased outlines."""
    height, width, _ = canvas_size(canvas)
    video = np.empty((num_frames, height, width, 3), np.uint8)
    video[:] = BACKGROUND
    tracks = positions(scene, first_frame + np.arange(num_frames), canvas, fps).astype(np.float32)
    for shape, track, radius in zip(scene.shapes, tracks, _radii(scene, canvas), strict=True):
        _paint(video, shape, track, radius)
    return video


def _paint(video: np.ndarray, shape: Shape, track: np.ndarray, radius: float) -> None:
    """Paint one shape over `video` in place, touching only a square patch around its centre in each frame."""
    patch = int(np.ceil(2 * radius)) + 3  # the outline, half a pixel of its soft edge, and rounding
    corner = np.clip(np.round(track - patch / 2).astype(int), 0, np.array(video.shape[2:0:-1])[None, :] - patch)
    columns, rows = (corner[:, axis, None] + np.arange(patch)[None, :] for axis in (0, 1))
    x, y = ((cells + 0.5 - track[:, axis, None]).astype(np.float32) for axis, cells in ((0, columns), (1, rows)))
    coverage = np.clip(0.5 - signed_distance(shape.kind, x[:, None, :], y[:, :, None], np.float32(radius)), 0, 1)
    where = (np.arange(len(video))[:, None, None], rows[:, :, None], columns[:, None, :])
    below = video[where].astype(np.float32)
    color = np.array(COLORS[shape.color], np.float32)
    video[where] = (below + coverage[..., None] * (color - below) + 0.5).astype(np.uint8)


# --- captions ---------------------------------------------------------------------------------------------------------

_SIZE_WORDS = {"small": "small", "little": "small", "large": "large", "big": "large"}
_VERBS = {"moves": "move", "glides": "glide", "bounces": "bounce"}
_ADJECTIVES = {"slow": "slow", "fast": "fast"}
_ADVERBS = {"slowly": "slow", "fast": "fast", "quickly": "fast"}
_DIRECTION_WORDS = ("up", "down", "left", "right")
_JOINTS = ("a", "an", "and", ",")
SIZE_NAMED, SPEED_NAMED, DIRECTION_NAMED, VERB_SHARED = 0.9, 0.9, 0.5, 0.6  # probabilities, where there is a choice


@dataclass(frozen=True)
class Description:
    """What a caption says of one shape; None where it says nothing. `direction` is the initial one."""

    kind: str
    color: str
    size: str | None = None
    speed: str | None = None
    direction: str | None = None


def caption(scene: Scene, rng: np.random.Generator, complete: bool = False) -> str:
    """A random caption of the scene, such as "a small blue square moves slowly left"; at most 25 words.

    Sizes and speeds are mostly named, directions half of the time; `complete` names every size and speed, as evaluation
    prompts need. Several shapes share a verb more often than not: with an adverb if their speeds agree ("... and ...
    bounce slowly"), otherwise with adjectives ("a slow ... and a fast ... bounce"); a shared direction is named only if
    it is everyone's.
    """
    shapes = scene.shapes
    size_named, speed_named = (complete or bool(rng.random() < p) for p in (SIZE_NAMED, SPEED_NAMED))
    if len(shapes) == 1 or rng.random() >= VERB_SHARED:
        return _join([_clause((shape,), rng, size_named, speed_named) for shape in shapes])
    return _clause(shapes, rng, size_named, speed_named)


def _clause(shapes: tuple[Shape, ...], rng: np.random.Generator, size_named: bool, speed_named: bool) -> str:
    """One verb with its subjects: "a red circle bounces fast"."""
    speeds, directions = ({getattr(shape, name) for shape in shapes} for name in ("speed", "direction"))
    as_adjective = speed_named and (len(speeds) > 1 or rng.random() < 0.25)
    subjects = [_subject(shape, rng, size_named, as_adjective) for shape in shapes]
    verb = str(rng.choice(list(_VERBS)))
    manner = []
    if speed_named and not as_adjective:
        manner.append(_one_word_for(shapes[0].speed, _ADVERBS, rng))
    if len(directions) == 1 and rng.random() < DIRECTION_NAMED:
        manner.insert(int(rng.integers(len(manner) + 1)), shapes[0].direction)
    return " ".join([_join(subjects), verb if len(shapes) == 1 else _VERBS[verb], *manner])


def _subject(shape: Shape, rng: np.random.Generator, size_named: bool, speed_named: bool) -> str:
    words = [shape.color, shape.kind]
    if size_named:
        words.insert(0, _one_word_for(shape.size, _SIZE_WORDS, rng))
    if speed_named:
        words.insert(0, _one_word_for(shape.speed, _ADJECTIVES, rng))
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _one_word_for(meaning: str, words: dict[str, str], rng: np.random.Generator) -> str:
    return str(rng.choice([word for word, means in words.items() if means == meaning]))


def _join(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def sample_captions(rng: np.random.Generator, count: int, split: Split | None = None) -> Iterator[str]:
    """`count` captions of random scenes, for training a tokenizer."""
    for _ in range(count):
        yield caption(sample_scene(rng, split=split), rng)


def parse_caption(text: str) -> list[Description]:
    """What a prompt says of each shape, in its order: the inverse of `caption`.

    Capital letters and full stops do not matter. A verb's speed and direction hold for all subjects that share it.

    Raises:
      ConfigError: a word outside the grammar, a verb without a shape, a shape without kind or colour, or two values of
        one attribute.
    """
    done: list[dict[str, str]] = []
    subjects: list[dict[str, str]] = [{}]  # of the clause being read
    after_verb = False
    for word in re.findall(r"(?:up|down) (?:left|right)\b|[^\s,.]+|,", text.lower()):
        if word in _JOINTS:
            if after_verb:
                done, subjects, after_verb = done + subjects, [{}], False
            elif subjects[-1]:
                subjects.append({})
        elif word in _VERBS or word in _VERBS.values():
            subjects = [subject for subject in subjects if subject]
            if not subjects or after_verb:
                raise ConfigError(f"prompt {text!r}: the verb {word!r} has no shape of its own")
            after_verb = True
        else:
            name, value = _meaning(word, after_verb, text)
            for subject in subjects if after_verb else subjects[-1:]:
                known = subject.setdefault(name, value)
                if known != value:
                    raise ConfigError(f"prompt {text!r}: a shape has two values of {name}, {known} and {value}")
    found = [subject for subject in done + subjects if subject]
    if not found:
        raise ConfigError(f"prompt {text!r} names no shape; write for example: a small blue square moves slowly left")
    for subject in found:
        for name in ("kind", "color"):
            if name not in subject:
                raise ConfigError(f"prompt {text!r}: a shape has no {name}; every shape needs a colour and a kind")
    return [Description(**subject) for subject in found]


def _meaning(word: str, after_verb: bool, text: str) -> tuple[str, str]:
    """The attribute that a word gives a value to, and the value."""
    before = (("kind", KINDS), ("color", COLORS), ("size", _SIZE_WORDS), ("speed", _ADJECTIVES))
    after = (("speed", _ADVERBS), ("direction", DIRECTIONS))
    for name, words in after if after_verb else before:
        if word in words:
            return name, str(words[word]) if words in (_SIZE_WORDS, _ADJECTIVES, _ADVERBS) else word
    place = "after a verb" if after_verb else "before a verb"
    known = ", ".join(word for _, words in (after if after_verb else before) for word in words)
    raise ConfigError(f"prompt {text!r}: cannot read {word!r} {place}; the words known there are {known}")
