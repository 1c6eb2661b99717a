"""Encoded fragments depend on their frames alone."""

from fractions import Fraction

import numpy as np

from pavdm_jax.video.fragments import encode


def test_equal_frames_give_equal_bytes_whatever_the_memory_held_before():
    """At a width that is no multiple of 16; PyAV 19's x264 reads there what it has not written (macroblock tree)."""
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 256, (340, 4, 6, 3)), np.ones((1, 4, 4, 1)))
    noise = blocks + rng.integers(-40, 40, (340, 16, 24, 3))
    video = [noise[0]]
    for frame in noise[1:]:
        video.append(0.8 * video[-1] + 0.2 * frame)
    frames = np.clip(128 + 2 * (np.array(video) - 128), 0, 255).astype(np.uint8)
    for first in range(0, len(frames), 17):
        made = set()
        for _ in range(4):
            sizes, values = rng.integers(1000, 3_000_000, 60), rng.integers(0, 256, 60)
            held = [np.full(size, value, np.uint8) for size, value in zip(sizes, values, strict=True)]
            del held
            made.add(encode(frames[first : first + 17], first, Fraction(24), 18))
        assert len(made) == 1, first
