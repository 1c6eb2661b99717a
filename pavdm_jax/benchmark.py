"""Speed, memory and compile time of this machine: `python -m pavdm_jax.benchmark`.

Each measurement runs in a process of its own, so that peaks of memory do not mix. A cold start has an empty compilation cache, a warm
one the cache that the cold one left. With `--compile-only` nothing is run: see `compile_only.py`.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from pavdm_jax import storage
from pavdm_jax.ahead_of_time.generation import HEADER, CompileConfig, compile_only, row
from pavdm_jax.checkpoints.load import load
from pavdm_jax.cli import enable_cache, exit_with, read_fields
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.pipeline import generate_stream
from pavdm_jax.geometry import chunk_frames
from pavdm_jax.outputs import check_output
from pavdm_jax.video.writer import VideoWriter


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure."""

    checkpoint: str = "demo"  # a model folder, or "demo"
    prompt: str = "a small blue square and a large red circle bounce slowly"
    frames: tuple[int, ...] = (1440, 5760)  # lengths of video; memory should not depend on them
    segment: int = 2  # shifts of a compiled call
    output: str | None = None  # a JSON file for the numbers


@dataclass(frozen=True)
class Measurement:
    """One video, made in a fresh process."""

    frames: int
    cache: str  # "cold" or "warm"
    start_seconds: float  # imports and loading the model
    compile_seconds: float  # until the first segment and the first decoded chunk are done, less their running time
    generate_seconds: float  # all frames, into a file, without start and compilation
    frames_per_second: float
    peak_memory_mb: float  # of the process: resident, or of the device where it tells


def measure(checkpoint: str, prompt: str, frames: int, segment: int, began: float) -> dict:
    """Make and encode one video in this process, which was started at the time `began`, and measure."""
    model = load(checkpoint)
    loaded = time.time()
    # A video of one chunk runs every compiled program of a longer one; the second time, nothing is compiled.
    short = []
    for _ in range(2):
        started = time.perf_counter()
        list(generate_stream(model, prompt, chunk_frames(model.config), segment=segment))
        short.append(time.perf_counter() - started)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        with VideoWriter(Path(folder) / "video.mp4", model.config.fps) as writer:
            for chunk in generate_stream(model, prompt, frames, segment=segment):
                writer.write(chunk[0])
        made = writer.position.num_frames
    seconds = time.perf_counter() - started
    return {
        "frames": made,
        "start_seconds": loaded - began,
        "compile_seconds": short[0] - short[1],
        "generate_seconds": seconds,
        "frames_per_second": made / seconds,
        "peak_memory_mb": _peak_memory_mb(),
    }


def _peak_memory_mb() -> float:
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"] / 1e6
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def benchmark(config: BenchmarkConfig) -> list[Measurement]:
    """The first length with a cold and a warm cache, the others warm."""
    if not config.frames:
        raise ConfigError("frames names no length; give at least one")
    runs = [(config.frames[0], "cold"), *((frames, "warm") for frames in config.frames)]
    measurements = []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PAVDM_CACHE": cache}
        for frames, state in runs:
            request = [config.checkpoint, config.prompt, str(frames), str(config.segment), repr(time.time())]
            command = [sys.executable, "-m", "pavdm_jax.benchmark", "--one", *request]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise ConfigError(f"the measurement failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            measurements.append(Measurement(cache=state, **json.loads(done.stdout.splitlines()[-1])))
            _print_row(measurements[-1], header=len(measurements) == 1)
    return measurements


def _print_row(measurement: Measurement, header: bool) -> None:
    if header:
        print(
            f"{'frames':>7} {'cache':>6} {'start s':>8} {'compile s':>10} {'generate s':>11} {'frames/s':>9} {'peak MB':>8}"
        )
    print(
        f"{measurement.frames:7} {measurement.cache:>6} {measurement.start_seconds:8.1f} {measurement.compile_seconds:10.1f} "
        f"{measurement.generate_seconds:11.1f} {measurement.frames_per_second:9.1f} {measurement.peak_memory_mb:8.0f}",
        flush=True,
    )


def main() -> None:
    """The command line; user mistakes print one line and exit with 2."""
    exit_with(run, interrupted="interrupted")


def run() -> int:
    """Measure what the command line asks for (`--one` is how it calls itself for a single measurement); the exit code."""
    if sys.argv[1:2] == ["--one"]:
        enable_cache()
        checkpoint, prompt, frames, segment, began = sys.argv[2:]
        print(json.dumps(measure(checkpoint, prompt, int(frames), int(segment), float(began))))
        return 0
    if any(argument.split("=")[0] in ("--compile-only", "--compile_only") for argument in sys.argv[1:]):
        jax.config.update("jax_platforms", "cpu")  # an installed compiler for TPUs or GPUs is no TPU or GPU
        asked = read_fields(
            CompileConfig, sys.argv[1:], "benchmark", "Memory of generation on TPUs and GPUs, by compiling for them."
        )
        print(HEADER)
        compile_only(asked, each=lambda result: print(row(result), flush=True))
        return 0
    config = read_fields(BenchmarkConfig, sys.argv[1:], "benchmark", __doc__)
    if config.output is not None:
        check_output(config.output, (".json",))
    measurements = benchmark(config)
    if config.output is not None:
        numbers = {
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "date": time.strftime("%Y-%m-%d"),
        }
        numbers["measurements"] = [asdict(measurement) for measurement in measurements]
        storage.write(Path(config.output), (json.dumps(numbers, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    main()
