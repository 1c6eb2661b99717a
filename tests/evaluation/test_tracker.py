"""The tracker against rendered ground truth, clean and as blurred and noisy as a small VAE's output."""

import numpy as np
import pytest
from scipy import ndimage

from pavdm_jax.data import shapes_world
from pavdm_jax.data.shapes_world import Scene, Shape, parse_caption
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import paths, tracker

CANVASES = (64, (64, 112), 128)


def degrade(video, rng):
    """The video with the blur and noise of a reconstruction at about 28 dB."""
    blurred = ndimage.gaussian_filter(video.astype(np.float64), (0, 0.8, 0.8, 0))
    return np.clip(np.rint(blurred + rng.normal(0, 8, video.shape)), 0, 255).astype(np.uint8)


def detect(frame):
    """The shapes in a frame, best score first; without what has no kind of this world."""
    return [found for found in tracker.observe(frame[None]).detections[0] if found.kind != tracker.OTHER]


def track(video, expected):
    """Centres of each expected shape, `[n_expected, f, 2]`; nan where nothing has its kind, colour and size."""
    return tracker.centres(tracker.follow(tracker.observe(video).detections, expected))


def one_shape(kind="circle", color="red", size="large", speed="fast", direction="right", position=(0.5, 0.5)):
    return Scene((Shape(kind, color, size, speed, direction, position),))


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize(("noisy", "required"), [(False, 0.98), (True, 0.95)])
def test_shapes_are_recognised_and_placed(canvas, noisy, required):
    rng = np.random.default_rng(0)
    right, total, invented, distances, decibels = 0, 0, 0, [], []
    for _ in range(60):
        scene = shapes_world.sample_scene(rng, canvas)
        clean = shapes_world.render(scene, 1, canvas)
        frame = degrade(clean, rng) if noisy else clean
        decibels.append(10 * np.log10(255**2 / max(np.mean((frame.astype(float) - clean) ** 2), 1e-9)))
        found = {(d.kind, d.color, d.size): d.position for d in detect(frame[0])}
        invented += max(0, len(found) - len(scene.shapes))
        total += len(scene.shapes)
        for shape, place in zip(scene.shapes, shapes_world.positions(scene, [0], canvas)[:, 0], strict=True):
            if (shape.kind, shape.color, shape.size) in found:
                right += 1
                distances.append(np.linalg.norm(place - found[shape.kind, shape.color, shape.size]))
    assert not noisy or 27 < np.mean(decibels) < 30
    assert right / total >= required
    assert invented == 0
    assert max(distances) < 1.0


@pytest.mark.parametrize("kind", shapes_world.KINDS)
@pytest.mark.parametrize("size", shapes_world.RADIUS_PX)
def test_every_kind_and_size_in_every_color_with_its_area(kind, size):
    for color in shapes_world.COLORS:
        (found,) = detect(shapes_world.render(one_shape(kind, color, size, position=(0.31, 0.83)), 1)[0])
        assert (found.kind, found.color, found.size) == (kind, color, size)
        factor = {"circle": np.pi, "square": 4 * 0.886**2, "triangle": 1.8}[kind]
        assert found.area == pytest.approx(factor * shapes_world.RADIUS_PX[size] ** 2, rel=0.05)
        assert found.score > 0.95


def test_nothing_is_found_in_background_noise_specks_and_stripes():
    rng = np.random.default_rng(0)
    empty = np.full((1, 64, 64, 3), shapes_world.BACKGROUND, np.uint8)
    assert detect(empty[0]) == []
    assert detect(degrade(empty, rng)[0]) == []
    empty[0, 10:13, 10:13] = shapes_world.COLORS["red"]
    empty[0, 30:32, :] = shapes_world.COLORS["green"]
    assert detect(empty[0]) == []


def test_whatever_a_model_paints_can_be_looked_at():
    rng = np.random.default_rng(0)
    for blur in (0, 1, 2, 4, 8):
        noise = ndimage.gaussian_filter(rng.normal(size=(4, 64, 64, 3)), (0, blur, blur, 0))
        frames = np.clip(40 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
        for detections in tracker.observe(frames).detections:
            assert all(
                np.isfinite([*d.position, d.radius, d.aspect, d.tilt, d.hue, d.contrast]).all() for d in detections
            )
    for value in (0, 255):
        assert detect(np.full((64, 64, 3), value, np.uint8)) == []


def test_a_half_hidden_shape_is_seen_whole():
    below = Shape("square", "red", "large", "slow", "up", (0.4, 0.5))
    above = Shape("circle", "blue", "small", "slow", "up", (0.62, 0.4))
    scene = Scene((below, above))
    found = {(d.kind, d.color, d.size): d.position for d in detect(shapes_world.render(scene, 1)[0])}
    places = shapes_world.positions(scene, [0])[:, 0]
    np.testing.assert_allclose(found["square", "red", "large"], places[0], atol=1.0)
    np.testing.assert_allclose(found["circle", "blue", "small"], places[1], atol=1.0)


def test_a_shape_cut_in_two_by_another_one_is_still_one():
    below = Shape("square", "yellow", "large", "slow", "up", (0.5, 0.5))
    frame = shapes_world.render(Scene((below,)), 1)[0]
    frame[:, 29:35] = shapes_world.COLORS["cyan"]
    (yellow,) = [d for d in detect(frame) if d.color == "yellow"]
    assert (yellow.kind, yellow.size) == ("square", "large")
    np.testing.assert_allclose(yellow.position, (32, 32), atol=1.0)


@pytest.mark.parametrize("noisy", [False, True])
def test_tracks_and_speeds_through_bounces_and_occlusion(noisy):
    rng = np.random.default_rng(1)
    for speeds in (("slow", "fast"), ("fast", "slow")):
        scene = Scene(
            (
                Shape("triangle", "green", "small", speeds[0], "right", (0.1, 0.55)),
                Shape("square", "orange", "large", speeds[1], "up left", (0.9, 0.8)),
            )
        )
        video = shapes_world.render(scene, 96)
        tracks = track(degrade(video, rng) if noisy else video, scene.shapes)
        assert np.isfinite(tracks).all(axis=-1).mean() > 0.85
        distance = np.linalg.norm(tracks - shapes_world.positions(scene, np.arange(96)), axis=-1)
        assert np.nanquantile(distance, 0.95) < 1.0
        for shape, one in zip(scene.shapes, tracks, strict=True):
            expected = shapes_world.SPEED_PX_PER_S[shape.speed]
            assert paths.measured_speed(one, 24.0, 64) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("canvas", [64, 96, (64, 112)])
@pytest.mark.parametrize("fps", [8.0, 24.0])
def test_speed_of_exact_positions_on_any_canvas_and_frame_rate(canvas, fps):
    for direction in shapes_world.DIRECTIONS:
        scene = one_shape(direction=direction, position=(0.2, 0.7))
        exact = shapes_world.positions(scene, np.arange(int(10 * fps)), canvas, fps)[0]
        exact[3:6] = np.nan
        assert paths.measured_speed(exact, fps, canvas) == pytest.approx(30.0, rel=0.02)


def test_speed_of_what_stands_still_or_is_never_seen():
    assert paths.measured_speed(np.full((48, 2), 20.0), 24.0, 64) == 0.0
    assert np.isnan(paths.measured_speed(np.full((48, 2), np.nan), 24.0, 64))
    assert np.isnan(paths.measured_speed(np.zeros((4, 2)), 24.0, 64))
    with pytest.raises(ConfigError, match=r"\(1, 48, 2\)"):
        paths.measured_speed(np.zeros((1, 48, 2)), 24.0, 64)


def test_shapes_of_one_kind_and_color_keep_their_own_tracks():
    shapes = (
        Shape("circle", "red", "small", "fast", "right", (0.0, 0.0)),
        Shape("circle", "red", "large", "fast", "left", (1.0, 1.0)),
    )
    scene = Scene(shapes)
    video = shapes_world.render(scene, 24)
    for order in ((0, 1), (1, 0)):
        tracks = track(video, [shapes[i] for i in order])
        np.testing.assert_allclose(tracks, shapes_world.positions(scene, np.arange(24))[list(order)], atol=1.0)


def test_a_shape_is_followed_only_with_its_color_and_kind():
    scene = Scene((*one_shape().shapes, Shape("square", "blue", "small", "slow", "left", (0.1, 0.1))))
    window = shapes_world.render(scene, 9)

    def seen(prompt):
        """How many of the shapes are seen in each frame."""
        return set(np.isfinite(track(window, parse_caption(prompt))).all(axis=-1).sum(axis=0).tolist())

    assert seen("a small blue square moves slowly and a large red circle bounces fast") == {2}
    for absent in ("a red square", "an orange circle", "a green triangle", "a blue circle"):
        assert seen(absent) == {0}, absent
    assert seen("a red circle and a red circle") == {1}
