"""The shapes world: a procedural source of videos whose ground truth is known for every frame.

One to three coloured shapes move at constant velocity and bounce off the borders without loss. All that is seen is in
closed form, so any frame of an endless video is computed directly. Lengths are pixels of a 64-pixel canvas and scale
with the shorter side of a larger one. Coordinates are (x, y) in pixels, x to the right and y downwards; the centre of
pixel [row, column] lies at (column + 0.5, row + 0.5).

A `World` says what scenes are drawn from. In `SIMPLE`, a caption names nearly all there is. In `HIDDEN`, shapes and
backgrounds have attributes that no caption names (the exact hue, size, aspect, tilt and texture of a shape, the
background, a slow change of the light): a model that forgets the beginning of a video cannot read them from the prompt.

What a description says, a caption can say, and `parse_caption` reads it back; so a generated video can be scored
against its prompt alone.
"""

from pavdm_jax.data.shapes_world.captions import Description, caption, parse_caption, sample_captions
from pavdm_jax.data.shapes_world.colors import color_index, color_name, exact_color, hue_and_saturation
from pavdm_jax.data.shapes_world.motion import bounding_radii, folded, positions, ranges
from pavdm_jax.data.shapes_world.outlines import margins, signed_distance, turned
from pavdm_jax.data.shapes_world.rendering import background, lighting, render, visibility
from pavdm_jax.data.shapes_world.sampling import Split, held_out, sample_scene
from pavdm_jax.data.shapes_world.scene import (
    BACKGROUND,
    BASE_CANVAS,
    COLORS,
    DIRECTIONS,
    KINDS,
    RADIUS_PX,
    SPEED_PX_PER_S,
    TEXTURES,
    Background,
    Canvas,
    Light,
    Look,
    Scene,
    Shape,
    Texture,
    canvas_size,
)
from pavdm_jax.data.shapes_world.world import HIDDEN, SIMPLE, WORLDS, World, named_world

__all__ = [
    "BACKGROUND",
    "BASE_CANVAS",
    "COLORS",
    "DIRECTIONS",
    "HIDDEN",
    "KINDS",
    "RADIUS_PX",
    "SIMPLE",
    "SPEED_PX_PER_S",
    "TEXTURES",
    "WORLDS",
    "Background",
    "Canvas",
    "Description",
    "Light",
    "Look",
    "Scene",
    "Shape",
    "Split",
    "Texture",
    "World",
    "background",
    "bounding_radii",
    "canvas_size",
    "caption",
    "color_index",
    "color_name",
    "exact_color",
    "folded",
    "held_out",
    "hue_and_saturation",
    "lighting",
    "margins",
    "named_world",
    "parse_caption",
    "positions",
    "ranges",
    "render",
    "sample_captions",
    "sample_scene",
    "signed_distance",
    "turned",
    "visibility",
]
