"""A very long video at constant memory; run by hand, since it takes minutes:

    PYTHONPATH=tests python tests/support/soak.py [--frames 100000]

The smallest model that has every part makes the frames; the process's resident memory is noted every 1,000 of them. It
fails when memory in the last half of the run grows by more than 1 %.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

from support.tiny_model import PROMPT, tiny_model

from pavdm_jax import generate_stream

NOTED_EVERY = 1_000
SHOWN_EVERY = 10_000
ALLOWED_GROWTH = 0.01


def resident_bytes() -> int:
    """Of this process, now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def growth(noted: list[int]) -> float:
    """By what share memory rises above that in the middle of the run."""
    half = noted[len(noted) // 2 :]
    return max(half) / half[0] - 1


def soak(frames: int) -> list[int]:
    """Make a video of so many frames, which are dropped; the resident memory, in bytes, after every 1,000 of them."""
    noted: list[int] = []
    done, began = 0, time.time()
    for made in generate_stream(tiny_model(), PROMPT, frames=frames):
        done += made.shape[1]
        while done >= NOTED_EVERY * (len(noted) + 1):
            noted.append(resident_bytes())
            if NOTED_EVERY * len(noted) % SHOWN_EVERY == 0:
                minutes = (time.time() - began) / 60
                print(f"{NOTED_EVERY * len(noted)} frames, {minutes:.1f} min, {noted[-1] / 1e6:.1f} MB", flush=True)
    if done != frames:
        sys.exit(f"{done} frames were made, not {frames}")
    return noted


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="at least 4000 (default %(default)s)")
    frames = parser.parse_args().frames
    if frames < 4 * NOTED_EVERY:
        parser.error(f"--frames {frames}: give at least {4 * NOTED_EVERY}")
    grown = growth(soak(frames))
    print(f"growth of memory in the last half: {grown:.2%}")
    if grown > ALLOWED_GROWTH:
        sys.exit(f"memory grows by {grown:.2%} in the last half; at most {ALLOWED_GROWTH:.0%} is allowed")


if __name__ == "__main__":
    main()
