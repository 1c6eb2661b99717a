"""The shapes world with attributes that no caption names: they vary, are constant in truth, and are drawn as stated."""

import colorsys
import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from pavdm_jax.config import demo
from pavdm_jax.data import shapes_world
from pavdm_jax.data.clips import ShapesClips
from pavdm_jax.data.config import ShapesData
from pavdm_jax.data.shapes_world import (
    HIDDEN,
    Background,
    Light,
    Look,
    Scene,
    Shape,
    Texture,
    World,
    colors,
    motion,
)
from pavdm_jax.data.training_captions import training_captions
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.tokenizer import Tokenizer, train_tokenizer

CANVASES = (64, 96, (64, 112))


def scenes(count, seed=0, world=HIDDEN, **options):
    rng = np.random.default_rng(seed)
    return [shapes_world.sample_scene(rng, world=world, **options) for _ in range(count)]


def one(kind="square", color="red", size="large", position=(0.5, 0.5), direction="right", **look):
    return Scene((Shape(kind, color, size, "fast", direction, position, Look(**look)),))


def foreground(scene, canvas=64, first_frame=0, frames=1):
    """Pixels that differ from the background."""
    empty = shapes_world.background(scene, canvas)
    video = shapes_world.render(scene, frames, canvas, first_frame=first_frame).astype(float)
    return np.abs(video - empty).sum(axis=-1) > 3


def test_hue_ranges_of_the_named_colors_lie_apart():
    ranges = []
    for name, half in colors.HUE_HALF_RANGE.items():
        hue = colorsys.rgb_to_hsv(*(v / 255 for v in shapes_world.COLORS[name]))[0] * 360
        ranges.append((hue - half, hue + half))
    ranges.sort()
    ranges.append((ranges[0][0] + 360, ranges[0][1] + 360))
    assert all(low - high >= 13 for (_, high), (low, _) in pairwise(ranges))


@pytest.mark.parametrize("color", shapes_world.COLORS)
def test_exact_colors_keep_their_name_in_any_tone_and_fill_the_range(color):
    found = [colors.exact_color(one(color=color, hue=hue).shapes[0]) for hue in np.linspace(-1, 1, 21)]
    assert colors.exact_color(one(color=color).shapes[0]) == shapes_world.COLORS[color]
    for tone in (1.0, 0.35):
        assert {shapes_world.color_name(np.array(rgb) * tone) for rgb in found} == {color}
    assert np.ptp(found, axis=0).max() > 10
    assert np.max(found) <= 255


@pytest.mark.parametrize("canvas", CANVASES)
def test_hidden_shapes_stay_inside_and_touch_the_borders(canvas):
    height, width, scale = shapes_world.canvas_size(canvas)
    for kind in shapes_world.KINDS:
        for corner in ((0.0, 0.0), (1.0, 1.0)):
            scene = one(kind, position=corner, scale=1.1, aspect=1.15, tilt=17.0)
            rows, columns = np.nonzero(foreground(scene, canvas)[0])
            away = (columns.min(), rows.min()) if corner[0] == 0 else (width - columns.max(), height - rows.max())
            assert np.all(np.array(away) <= 4 * scale), (kind, corner)
    for scene in scenes(8, canvas=canvas):
        centres = shapes_world.positions(scene, np.arange(0, 3000, 7), canvas)
        low, reach = (limits[:, None] for limits in shapes_world.ranges(scene, canvas))
        assert np.all(centres >= low - 1e-9)
        assert np.all(centres <= low + reach + 1e-9)


@pytest.mark.parametrize("kind", shapes_world.KINDS)
def test_scale_changes_the_area_and_aspect_and_tilt_do_not(kind):
    area = foreground_area(one(kind))
    assert foreground_area(one(kind, aspect=1.15, tilt=18.0)) == pytest.approx(area, rel=0.02)
    assert foreground_area(one(kind, scale=1.1)) == pytest.approx(1.21 * area, rel=0.02)


def foreground_area(scene):
    """In pixels, from the soft coverage."""
    background = np.array(shapes_world.BACKGROUND, float)
    contrast = shapes_world.render(scene, 1)[0] - background
    return np.sum(contrast[..., 0]) / (shapes_world.COLORS["red"][0] - background[0])


def test_aspect_is_width_over_height_and_tilt_turns_clockwise():
    rows, columns = np.nonzero(foreground(one("circle", aspect=1.2))[0])
    assert np.ptp(columns) > np.ptp(rows) + 2
    rows, columns = np.nonzero(foreground(one("circle", aspect=1.3, tilt=30.0))[0])
    assert np.cov(columns, rows)[0, 1] > 0  # y is downwards: the right end of the long axis lies lower


@pytest.mark.parametrize("texture", ["stripes", "dots", "outline"])
@pytest.mark.parametrize("canvas", [64, 128])
def test_a_texture_moves_with_its_shape_and_grows_with_the_canvas(texture, canvas):
    scene = one("circle", texture=Texture(texture, 0.5, 30.0, 0.2), direction="right", position=(0.2, 0.5))
    # 30 pixels a second at 64 are a whole number of pixels after 4 frames and a multiple of it
    video = shapes_world.render(scene, 9, canvas)
    shift = 5 * canvas // 64
    np.testing.assert_allclose(video[4, :, shift:], video[0, :, :-shift].astype(float), atol=2)
    tones = video[0][..., 0][foreground(scene, canvas)[0]] / shapes_world.COLORS["red"][0]
    assert 0.1 < np.mean(np.abs(tones - 0.5) < 0.05) < 0.6  # the dark part
    assert 0.3 < np.mean(np.abs(tones - 1.0) < 0.05) < 0.9  # the bright part


def test_background_is_a_linear_gradient_that_the_light_dims():
    scene = dataclasses.replace(
        one(), background=Background((30, 20, 60), (70, 40, 20), 40.0), light=Light(0.3, 20.0, 0.25)
    )
    empty = shapes_world.background(scene)
    coordinates = np.stack([np.ones((64, 64)), *np.meshgrid(np.arange(64), np.arange(64))], axis=-1).reshape(-1, 3)
    fitted = coordinates @ np.linalg.lstsq(coordinates, empty.reshape(-1, 3), rcond=None)[0]
    np.testing.assert_allclose(fitted, empty.reshape(-1, 3), atol=1e-3)
    np.testing.assert_allclose((empty.min(axis=(0, 1)), empty.max(axis=(0, 1))), [(30, 20, 20), (70, 40, 60)], atol=1)
    factors = shapes_world.lighting(scene, np.arange(480))
    assert (factors.min(), factors.max()) == pytest.approx((0.7, 1.0), abs=1e-4)
    for frame in (0, 100, 240):
        video = shapes_world.render(scene, 1, first_frame=frame)[0]
        outside = ~foreground(dataclasses.replace(scene, light=Light()), first_frame=frame)[0]
        np.testing.assert_allclose(video[outside], (empty * factors[frame])[outside], atol=1)


def test_shapes_stay_visible_on_every_background():
    for scene in scenes(60, world=dataclasses.replace(HIDDEN, meetings=0.0)):
        empty = shapes_world.background(scene)
        video = shapes_world.render(scene, 1)[0] / shapes_world.lighting(scene, np.zeros(1))
        for shape, (x, y) in zip(scene.shapes, shapes_world.positions(scene, [0])[:, 0].astype(int), strict=True):
            near = np.s_[y - 1 : y + 2, x - 1 : x + 2]
            assert video[near].max(axis=-1).min() > empty[near].max(axis=-1).max() + 10, shape


def test_visibility_is_the_part_that_is_seen():
    below = Shape("square", "red", "large", "slow", "up", (0.5, 0.5))
    above = Shape("circle", "blue", "small", "slow", "up", (0.5, 0.5))
    beside = Shape("circle", "blue", "small", "slow", "up", (0.0, 0.0))
    seen = shapes_world.visibility(Scene((below, above)), np.arange(1))
    hidden = np.pi * 6.5**2 / (2 * 0.886 * 11) ** 2
    np.testing.assert_allclose(seen[:, 0], [1 - hidden, 1], atol=0.02)
    np.testing.assert_allclose(shapes_world.visibility(Scene((above, below)), np.arange(1))[:, 0], [0, 1], atol=1e-6)
    np.testing.assert_allclose(shapes_world.visibility(Scene((below, beside)), np.arange(1)), 1)


def test_meetings_bring_shapes_over_one_another_and_apart_again():
    for meetings, least, most in ((0.0, 0.0, 0.7), (1.0, 0.9, 1.0)):
        world = dataclasses.replace(HIDDEN, shape_counts=(0.0, 1.0, 0.0), meetings=meetings, slow_meetings=0.0)
        met = []
        for scene in scenes(60, world=world):
            seen = shapes_world.visibility(scene, np.arange(0, 24 * 9, 2)).min(axis=0)
            assert seen[0] > 0.97
            met.append(seen[:62].min() < 0.95 and seen[np.argmin(seen[:62]) :].max() > 0.99)
        assert least <= np.mean(met) <= most


def test_slow_meetings_hide_a_shape_for_longer_than_a_chunk():
    world = dataclasses.replace(HIDDEN, shape_counts=(0.0, 1.0, 0.0), meetings=1.0, slow_meetings=1.0)
    longest = []
    for scene in scenes(40, world=world):
        hidden = shapes_world.visibility(scene, np.arange(24 * 9)).min(axis=0) < 0.6
        runs = np.diff(np.flatnonzero(np.r_[True, ~hidden, True])) - 1
        longest.append(runs.max())
    assert np.mean(np.array(longest) > 17) > 0.9


def test_a_start_that_leads_to_a_place_does():
    rng = np.random.default_rng(0)
    reach = np.array([40.0, 51.0])
    found = 0
    for _ in range(200):
        place, travelled = rng.random(2) * reach, rng.uniform(-150, 150, 2)
        start = motion.start_that_leads_to(place, travelled, reach)
        if start is not None:
            found += 1
            assert np.all((start >= 0) & (start <= reach))
            np.testing.assert_allclose(motion.folded(start + travelled, reach), place, atol=1e-9)
    assert found > 80


def test_hidden_attributes_vary_within_their_limits_and_never_change_the_split():
    looks = [shape.look for scene in scenes(300) for shape in scene.shapes]
    for name, low, high in (("hue", -1, 1), ("scale", 0.88, 1.12), ("aspect", 1 / 1.15, 1.15), ("tilt", -18, 18)):
        values = np.array([getattr(look, name) for look in looks])
        assert low <= values.min() < low + 0.1 * (high - low) < high - 0.1 * (high - low) < values.max() <= high
    kinds = [look.texture.kind for look in looks]
    assert kinds.count("plain") / len(kinds) == pytest.approx(0.4, abs=0.1)
    assert set(kinds) == set(shapes_world.TEXTURES)
    for scene in scenes(50, split="test"):
        plain = Scene(tuple(dataclasses.replace(shape, look=Look()) for shape in scene.shapes))
        assert shapes_world.held_out(scene) and shapes_world.held_out(plain)


def test_small_and_large_stay_apart():
    small, large = (
        [shape.radius for scene in scenes(200) for shape in scene.shapes if shape.size == size]
        for size in ("small", "large")
    )
    assert max(small) * 1.25 < min(large)


def test_captions_leave_out_kinds_or_colors_and_are_read_back():
    rng = np.random.default_rng(5)
    world = dataclasses.replace(HIDDEN, kinds_unnamed=0.2, colors_unnamed=0.3)
    without = {"kind": 0, "color": 0}
    drawn = scenes(500, seed=6, world=dataclasses.replace(world, meetings=0.0))
    for scene in drawn:
        read = shapes_world.parse_caption(shapes_world.caption(scene, rng, world=world))
        assert len(read) == len(scene.shapes)
        for name in without:
            found = [getattr(description, name) for description in read]
            assert found in ([None] * len(found), [getattr(shape, name) for shape in scene.shapes])
            without[name] += found[0] is None
        assert all(description.kind or description.color for description in read)
        complete = shapes_world.parse_caption(shapes_world.caption(scene, rng, complete=True, world=world))
        named = [(d.kind, d.color, d.size, d.speed) for d in complete]
        assert named == [(s.kind, s.color, s.size, s.speed) for s in scene.shapes]
    assert without["kind"] / len(drawn) == pytest.approx(0.2, abs=0.06)
    assert without["color"] / len(drawn) == pytest.approx(0.3, abs=0.06)


def test_captions_fit_the_demo_s_text_encoder():
    config = demo()
    texts = list(shapes_world.sample_captions(np.random.default_rng(0), 2000, world=HIDDEN))
    tokenizer = Tokenizer(train_tokenizer(texts, config.t5.vocab_size))
    _, lengths = tokenizer.tokenize(texts, 100)
    assert lengths.max() <= config.text.max_tokens
    words = {word for text in texts for word in text.replace(",", "").split()}
    _, of_words = tokenizer.tokenize(sorted(words), 10)
    assert of_words.max() == 2  # every word has an id of its own, and </s> follows


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hues": 1.5}, "hues"),
        ({"sizes": 0.3}, "small and large"),
        ({"tilts": 45.0}, "45"),
        ({"shape_counts": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"kinds_unnamed": 0.6, "colors_unnamed": 0.6}, "exclude"),
    ],
)
def test_impossible_worlds_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        World(**settings)


def test_worlds_have_names():
    assert shapes_world.named_world("hidden") is HIDDEN
    with pytest.raises(ConfigError, match="simple or hidden"):
        shapes_world.named_world("real")
    with pytest.raises(ConfigError, match="plaid"):
        Texture("plaid")


def test_training_data_and_its_tokenizer_come_from_the_world_that_is_named():
    data = ShapesData(17, samples=20, seed=3, world=dataclasses.replace(HIDDEN, kinds_unnamed=0.5))
    clips, simple = ShapesClips(data, 64), ShapesClips(dataclasses.replace(data, world=shapes_world.SIMPLE), 64)
    assert clips.identity != simple.identity
    assert {clips.scene(i).background for i in range(20)} - {Background()}
    assert {simple.scene(i).background for i in range(20)} == {Background()}
    assert not np.array_equal(clips.frames(0), simple.frames(0))
    words = [" ".join(text for i in range(20) for text in each.captions(i)).split() for each in (clips, simple)]
    assert "shape" in words[0] and "shape" not in words[1]
    assert any("shape" in text.split() for text in training_captions([data], demo(), seed=0))
