"""VBench-Long's formulas, on outputs of networks for which the scores are known in closed form."""

from bisect import bisect_left

import numpy as np
import pytest

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import vbench_long
from pavdm_jax.evaluation.vbench_long import (
    MappingTable,
    consistency,
    dimension_curves,
    interpolation_errors,
    motion_smoothness,
    moves,
    read_mapping_table,
    similarity_to_first_and_previous,
    video_consistencies,
)

IDENTITY = MappingTable(np.linspace(0, 1, 101))


def turning(frames, degrees, start=0.0, length=3.0):
    """Vectors in a plane, each turned by so many degrees against the one before."""
    angles = np.radians(start + degrees * np.arange(frames))
    return length * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def test_a_constant_subject_is_consistent():
    assert similarity_to_first_and_previous(turning(48, 0)) == pytest.approx(1)


def test_a_turning_subject_has_the_mean_of_its_cosines():
    cosines = np.cos(np.radians(10 * np.arange(1, 9)))
    expected = np.mean((np.cos(np.radians(10)) + cosines) / 2)
    assert similarity_to_first_and_previous(turning(9, 10)) == pytest.approx(expected)


def test_negative_cosines_count_as_nothing():
    assert similarity_to_first_and_previous(turning(3, 120)) == 0


def test_a_single_frame_has_no_consistency():
    assert np.isnan(similarity_to_first_and_previous(turning(1, 0)))


def test_a_video_is_scored_half_within_clips_and_half_between_them():
    # Each clip is constant; from clip to clip the second network sees a turn of 30 degrees.
    frames = [turning(48, 0) for _ in range(3)]
    first = [turning(1, 0, start=30.0 * i) for i in range(3)]
    between = np.mean([np.cos(np.radians(30)), (np.cos(np.radians(30)) + np.cos(np.radians(60))) / 2])
    found = consistency(frames, first, IDENTITY)
    assert found.clip_to_clip == found.mapped == pytest.approx(between)
    assert found.score == pytest.approx(0.5 * 1 + 0.5 * between)


def test_a_clip_to_clip_score_is_mapped_by_the_table():
    table = MappingTable(np.sqrt(np.linspace(0, 1, 101)))
    first = [turning(1, 0, start=60.0 * i) for i in range(2)]
    found = consistency([turning(4, 0)] * 2, first, table)
    assert found.clip_to_clip == pytest.approx(0.5)
    assert found.mapped == pytest.approx(np.sqrt(0.5))
    assert found.score == pytest.approx((1 + np.sqrt(0.5)) / 2)


def test_a_video_of_one_clip_is_scored_within_it():
    found = consistency([turning(9, 10)], [turning(1, 0)], IDENTITY)
    assert (found.clip_to_clip, found.mapped) == (None, None)
    assert found.score == similarity_to_first_and_previous(turning(9, 10))


def test_a_score_that_is_mapped_to_zero_counts_as_missing():
    opposite = consistency([turning(4, 0)] * 2, [turning(1, 0), turning(1, 0, start=180.0)], IDENTITY)
    assert (opposite.mapped, opposite.score) == (0, 1)


def vbench_map(table, score):
    """The lookup of `fuse_inclip_clip2clip`."""
    keys = sorted(table)
    at = bisect_left(keys, score)
    if at == 0:
        return table[keys[0]]
    if at == len(keys):
        return table[keys[-1]]
    before, after = keys[at - 1], keys[at]
    return table[before] + (table[after] - table[before]) * (score - before) / (after - before)


def test_the_lookup_is_that_of_vbench(tmp_path):
    values = np.sort(np.random.default_rng(0).random(101))
    table = {round(i / 100, 2): float(value) for i, value in enumerate(values)}
    path = tmp_path / "table.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in table.items()))
    read = read_mapping_table(path)
    for score in [-0.1, 0, 0.004, 0.01, 0.8, 0.801, 0.999, 1, 1.0000001]:
        assert read(score) == pytest.approx(vbench_map(table, score), abs=1e-12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("a: b", "cannot be read"),
        ("", "cannot be read"),
        ("0.0: 0.0\n1.0: 1.0", "must have the keys"),
    ],
)
def test_what_is_no_mapping_table_is_refused(tmp_path, content, message):
    path = tmp_path / "table.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_mapping_table(path)


@pytest.mark.parametrize("frames", [3, 4, 47, 48])
def test_smoothness_compares_odd_frames_with_what_lies_between_their_neighbours(frames):
    clip = np.full((frames, 4, 6, 3), 100, np.uint8)
    clip[1::2] += 51
    midpoints = clip[:-2:2]
    errors = interpolation_errors(clip, midpoints)
    assert errors.tolist() == [51] * ((frames - 1) // 2)
    assert motion_smoothness(errors) == pytest.approx(0.8)


def test_a_clip_moves_if_a_quarter_of_its_sampled_frames_do():
    """At 24 frames a second: 16 sampled frames, 15 flows, of which 4 must exceed 5.625 pixels at 240p."""
    still, moving = np.full(11, 5.6), np.full(4, 5.7)
    assert moves(np.concatenate([still, moving]), 240) == 1
    assert moves(np.concatenate([still, moving[:3], [5.6]]), 240) == 0
    assert moves(np.concatenate([still, moving]), 256) == 0  # the threshold grows with the picture
    assert moves(np.array([]), 240) == 0


def test_every_number_is_between_zero_and_one():
    curves = dimension_curves({"laion_aesthetic": [np.array([4.0, 6.0])], "musiq_spaq": [np.array([50.0, 70.0])]}, 240)
    assert curves == {"aesthetic_quality": [0.5], "imaging_quality": [0.6]}


def test_only_what_the_networks_have_said_is_scored():
    outputs = {"dino_vitb16": [turning(4, 0)] * 2, "dinov2_vitb14": [turning(1, 0)] * 2}
    assert list(dimension_curves(outputs, 64)) == ["subject_consistency_in_clip"]
    assert video_consistencies(outputs, {}) == {}
    assert list(video_consistencies(outputs, {"subject_consistency": IDENTITY})) == ["subject_consistency"]
    assert video_consistencies({"dino_vitb16": outputs["dino_vitb16"]}, {"subject_consistency": IDENTITY}) == {}


def test_every_dimension_has_a_protocol_that_names_its_network():
    protocols = vbench_long.dimension_protocols()
    assert set(protocols) == set(vbench_long.DIMENSIONS) | set(vbench_long.CONSISTENCIES)
    assert "RAFT" in protocols["dynamic_degree"]
