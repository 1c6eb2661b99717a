"""The tracker's own error, within bounds that a small sample can hold."""

import dataclasses
import json

import numpy as np

from pavdm_jax.data.shapes_world import KINDS, RADIUS_PX
from pavdm_jax.evaluation.tracker_error import tracker_errors

BOUNDS = {  # least share right, most pixels, most percent of the radius, most degrees of hue
    "clean": (1.0, 0.3, 5, 0.5),
    "blur 0.8, noise 8": (0.85, 0.5, 8, 2),
    "50 to 70 % visible": (0.6, 0.8, 8, 1),
}


def test_the_tracker_s_error_is_small_and_can_be_written_down():
    table = tracker_errors(samples=8, conditions=tuple(BOUNDS))
    assert len(table) == len(BOUNDS) * len(KINDS) * len(RADIUS_PX)
    for row in table:
        right, distance, radius, hue = BOUNDS[row.condition]
        assert row.right >= right, row
        assert row.invented == 0, row
        assert row.position_px <= distance and row.radius_percent <= radius, row
        assert np.isnan(row.hue_degrees) or row.hue_degrees <= hue, row
        assert row.elongation_percent <= 12, row
    assert len(json.dumps([dataclasses.asdict(row) for row in table])) < 10_000
