"""The shapes world: closed-form motion, pixels, captions that can be read back, and the split."""

import hashlib

import numpy as np
import pytest

from pavdm_jax.data import shapes_world
from pavdm_jax.data.shapes_world import Description, Scene, Shape, captions
from pavdm_jax.errors import ConfigError

CANVASES = (64, 96, (64, 112))


def scenes(count, seed=0, **options):
    rng = np.random.default_rng(seed)
    return [shapes_world.sample_scene(rng, **options) for _ in range(count)]


def velocities(scene, frames, canvas=64):
    """In pixels a second, from two positions close to one another."""
    frames = np.asarray(frames, float)
    change = shapes_world.positions(scene, frames + 1e-6, canvas) - shapes_world.positions(scene, frames, canvas)
    return change / 1e-6 * 24


def simulate(position, velocity, low, high, seconds):
    """Bouncing by many small steps: the slow way that the closed form must agree with."""
    steps = 20_000
    for _ in range(steps):
        position = position + velocity * seconds / steps
        velocity = np.where((position < low) | (position > high), -velocity, velocity)
        position = np.clip(position, low, high)
    return position


@pytest.mark.parametrize("canvas", CANVASES)
def test_closed_form_motion_agrees_with_simulated_bounces(canvas):
    height, width, scale = shapes_world.canvas_size(canvas)
    shape = Shape("circle", "red", "large", "fast", "down left", (0.3, 0.9))
    scene = Scene((shape,))
    radius = shapes_world.RADIUS_PX["large"] * scale
    start, velocity = (f(scene, [0], canvas)[0, 0] for f in (shapes_world.positions, velocities))
    expected = simulate(start, velocity, radius, np.array([width, height]) - radius, 200 / 24)
    np.testing.assert_allclose(shapes_world.positions(scene, [200], canvas)[0, 0], expected, atol=0.1)


@pytest.mark.parametrize("canvas", CANVASES)
def test_motion_stays_inside_and_keeps_its_speed(canvas):
    height, width, scale = shapes_world.canvas_size(canvas)
    for scene in scenes(20):
        centres = shapes_world.positions(scene, np.arange(3000), canvas)
        radii = np.array([shapes_world.RADIUS_PX[s.size] * scale for s in scene.shapes])[:, None, None]
        assert np.all(centres >= radii - 1e-9)
        assert np.all(centres <= np.array([width, height]) - radii + 1e-9)
        speeds = np.linalg.norm(velocities(scene, np.arange(3000), canvas), axis=-1)
        expected = np.array([shapes_world.SPEED_PX_PER_S[s.speed] * scale for s in scene.shapes])
        np.testing.assert_allclose(speeds, np.broadcast_to(expected[:, None], speeds.shape), rtol=1e-5)


def test_directions_are_eight_unit_vectors_named_as_seen_on_screen():
    vectors = np.array(list(shapes_world.DIRECTIONS.values()))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)
    assert len({tuple(v) for v in vectors}) == 8
    assert shapes_world.DIRECTIONS["up"][1] < 0 < shapes_world.DIRECTIONS["right"][0]


def test_frame_rate_changes_time_and_nothing_else():
    scene = scenes(1)[0]
    np.testing.assert_array_equal(shapes_world.render(scene, 5, fps=12), shapes_world.render(scene, 9, fps=24)[::2])


@pytest.mark.parametrize("canvas", CANVASES)
def test_render_is_stateless_in_time_and_paints_the_right_place(canvas):
    height, width, _ = shapes_world.canvas_size(canvas)
    for scene in scenes(5, canvas=canvas):
        video = shapes_world.render(scene, 30, canvas)
        assert video.shape == (30, height, width, 3)
        assert video.dtype == np.uint8
        np.testing.assert_array_equal(shapes_world.render(scene, 10, canvas, first_frame=20), video[20:])
        column, row = shapes_world.positions(scene, [7], canvas)[-1, 0].astype(int)
        np.testing.assert_array_equal(video[7, row, column], shapes_world.COLORS[scene.shapes[-1].color])


@pytest.mark.parametrize(("kind", "area"), [("circle", np.pi), ("square", 4 * 0.886**2), ("triangle", 1.8)])
def test_painted_mass_equals_the_area_of_the_shape_and_is_centred(kind, area):
    scene = Scene((Shape(kind, "white", "large", "fast", "right", (0.37, 0.61)),))
    foreground = shapes_world.render(scene, 1)[0, :, :, 0].astype(float) - shapes_world.BACKGROUND[0]
    mass = foreground / (shapes_world.COLORS["white"][0] - shapes_world.BACKGROUND[0])
    assert mass.sum() == pytest.approx(area * shapes_world.RADIUS_PX["large"] ** 2, rel=0.02)
    rows, columns = np.nonzero(mass > 0.5)
    x, y = shapes_world.positions(scene, [0])[0, 0]
    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(x, abs=0.6)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(y, abs=0.6)


def test_later_shapes_cover_earlier_ones():
    below = Shape("square", "red", "large", "slow", "up", (0.5, 0.5))
    above = Shape("circle", "blue", "small", "slow", "up", (0.5, 0.5))
    np.testing.assert_array_equal(shapes_world.render(Scene((below, above)), 1)[0, 32, 32], shapes_world.COLORS["blue"])
    np.testing.assert_array_equal(shapes_world.render(Scene((above, below)), 1)[0, 32, 32], shapes_world.COLORS["red"])


def test_sampled_scenes_have_the_stated_counts_distinct_colors_and_no_overlap():
    found = scenes(1500)
    counts = np.bincount([len(scene.shapes) for scene in found], minlength=4)[1:] / len(found)
    np.testing.assert_allclose(counts, shapes_world.SIMPLE.shape_counts, atol=0.05)
    for scene in found:
        assert len({shape.color for shape in scene.shapes}) == len(scene.shapes)
        centres = shapes_world.positions(scene, [0])[:, 0]
        radii = np.array([shapes_world.RADIUS_PX[shape.size] for shape in scene.shapes])
        gaps = np.linalg.norm(centres[:, None] - centres[None, :], axis=-1) - radii[:, None] - radii[None, :]
        assert np.all(gaps[~np.eye(len(radii), dtype=bool)] > 0)


def test_the_simple_world_never_changes():
    """Pixels and captions of the world that the embedded model was trained on, from before there was another one."""
    content = hashlib.sha256()
    for canvas in CANVASES:
        rng = np.random.default_rng(7)
        for number in range(10):
            scene = shapes_world.sample_scene(rng, canvas, split="test")
            content.update(shapes_world.render(scene, 9, canvas, first_frame=100 * number).tobytes())
            content.update(shapes_world.caption(scene, rng, complete=True).encode())
    assert content.hexdigest() == "6e40fa38b85e28171eb29a3b00eabf3030486b17e5f32977ff2381dc79e760d8"


def test_same_generator_state_same_scene():
    assert scenes(20, seed=3) == scenes(20, seed=3)
    assert scenes(20, seed=3) != scenes(20, seed=4)


def test_splits_share_no_set_of_shapes():
    def sets(split):
        return {frozenset((s.kind, s.color, s.size) for s in x.shapes) for x in scenes(1000, seed=1, split=split)}

    assert not sets("train") & sets("test")
    assert 0.05 < np.mean([shapes_world.held_out(scene) for scene in scenes(2000)]) < 0.16


def test_split_depends_neither_on_motion_nor_on_order():
    for scene in scenes(300):
        moved = [Shape(s.kind, s.color, s.size, "slow", "up", (0.0, 1.0)) for s in reversed(scene.shapes)]
        assert shapes_world.held_out(Scene(tuple(moved))) == shapes_world.held_out(scene)


@pytest.mark.parametrize("complete", [False, True])
def test_captions_are_read_back(complete):
    rng = np.random.default_rng(5)
    names = ("_SIZE_WORDS", "_ADJECTIVES", "_ADVERBS", "_VERBS")
    groups = [getattr(captions, name) for name in names] + [shapes_world.KINDS, shapes_world.COLORS]
    groups += [captions._VERBS.values(), captions._JOINTS[:3], ("up", "down", "left", "right")]
    vocabulary = {word for group in groups for word in group}
    named = {"size": 0, "speed": 0, "direction": 0}
    for scene in scenes(3000, seed=6):
        text = shapes_world.caption(scene, rng, complete=complete)
        assert len(text.split()) <= 25
        assert set(text.replace(",", "").split()) <= vocabulary
        read = shapes_world.parse_caption(text)
        assert len(read) == len(scene.shapes), text
        for description, shape in zip(read, scene.shapes, strict=True):
            assert (description.kind, description.color) == (shape.kind, shape.color), text
            for name in named:
                assert getattr(description, name) in (None, getattr(shape, name)), text
                named[name] += getattr(description, name) is not None
            assert not complete or (description.size, description.speed) == (shape.size, shape.speed), text
    assert all(named.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A small blue square moves slowly left.", [Description("square", "blue", "small", "slow", "left")]),
        ("an orange circle", [Description("circle", "orange")]),
        ("a circle moves", [Description("circle", None)]),
        ("a large shape moves left", [Description(None, None, "large", direction="left")]),
        ("a red circle moves down left quickly", [Description("circle", "red", None, "fast", "down left")]),
        (
            "a small blue square and a large red circle bounce slowly",
            [Description("square", "blue", "small", "slow"), Description("circle", "red", "large", "slow")],
        ),
        (
            "a slow blue square and a fast red circle bounce",
            [Description("square", "blue", speed="slow"), Description("circle", "red", speed="fast")],
        ),
        (
            "a cyan square moves up, a red circle glides and a big white triangle bounces fast",
            [
                Description("square", "cyan", direction="up"),
                Description("circle", "red"),
                Description("triangle", "white", "large", "fast"),
            ],
        ),
    ],
)
def test_prompts_are_read_as_a_person_reads_them(text, expected):
    assert shapes_world.parse_caption(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a purple circle moves", "purple"),
        ("a red circle moves happily", "happily"),
        ("moves left", "moves"),
        ("a red circle moves left and bounces", "bounces"),
        ("a red blue circle moves", "color"),
        ("a red circle moves left right", "direction"),
        ("a red", "kind"),
        ("", "names no shape"),
    ],
)
def test_prompts_outside_the_grammar_are_refused_by_name(text, named):
    with pytest.raises(ConfigError, match=named):
        shapes_world.parse_caption(text)


def test_wrong_values_are_refused():
    with pytest.raises(ConfigError, match="hexagon"):
        Shape("hexagon", "red", "large", "fast", "up", (0.5, 0.5))
    with pytest.raises(ConfigError, match=r"1\.5"):
        Shape("circle", "red", "large", "fast", "up", (0.5, 1.5))
    with pytest.raises(ConfigError, match="32"):
        shapes_world.render(scenes(1)[0], 1, canvas=32)
    with pytest.raises(ConfigError, match="validation"):
        shapes_world.sample_scene(np.random.default_rng(0), split="validation")


def test_sampled_captions_respect_the_split():
    texts = list(shapes_world.sample_captions(np.random.default_rng(0), 50, split="train"))
    assert len(texts) == 50
    assert all(shapes_world.parse_caption(text) for text in texts)
