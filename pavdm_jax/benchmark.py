"""Speed, memory and compile time of generation on this machine: `pavdm benchmark`.

Each measurement runs in a process of its own, so that each has its own peak of memory. A cold start has an empty
compilation cache, a warm one that of the cold start. Other measurements have options of their own (add --help):

    pavdm benchmark --real --output FILE.json                      published sizes, random weights, on this chip
    pavdm benchmark --compile-only v5e:1x1 h100:1                  memory of generation on chips of other machines
    pavdm benchmark --loader --config tpu_v4 --step-seconds 0.8    the loader against a training step
    pavdm benchmark --against CHECKOUT                             beside PyTorch, with the reference's code
"""

import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from pavdm_jax import storage
from pavdm_jax.ahead_of_time import against, on_chip
from pavdm_jax.ahead_of_time import generation as ahead_of_time
from pavdm_jax.ahead_of_time.generation import HEADER, CompileConfig, compile_only, row
from pavdm_jax.checkpoints.load import load
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.options import DEFAULT_FRAMES, Options, check_frames, read_options
from pavdm_jax.generation.pipeline import generate_stream
from pavdm_jax.generation.prompts import encode_prompts
from pavdm_jax.generation.recording import Recording
from pavdm_jax.generation.request import make_request
from pavdm_jax.geometry import decoded_frames
from pavdm_jax.outputs import check_output
from pavdm_jax.training.config import TrainConfig
from pavdm_jax.training.config_files import ConfigCommand, read_command_and_config

PROGRAM = "pavdm benchmark"


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure."""

    checkpoint: str = "demo"
    """a model folder or training run; or demo, or its student demo-distilled, which does a fifth of the work"""
    prompt: str = "a small blue square and a large red circle bounce slowly"
    """of all videos"""
    frames: tuple[int, ...] = (DEFAULT_FRAMES, 4 * DEFAULT_FRAMES)
    """lengths of video; memory should not depend on them"""
    segment: int = Options.segment
    """shifts of a compiled call"""
    dtype: str = Options.dtype
    """in which the networks compute, float32 or bfloat16"""
    output: str | None = None
    """a JSON file for the numbers"""

    def __post_init__(self) -> None:
        if not self.frames:
            raise ConfigError("frames names no length; give at least one")
        for frames in self.frames:
            check_frames(frames)
        read_options({"segment": self.segment, "dtype": self.dtype})
        if self.output is not None:
            check_output(self.output, (".json",))


@dataclass(frozen=True)
class LoaderConfig(ConfigCommand):
    """Which stage's loader to time, and the training step to which it is compared."""

    step_seconds: float | None = None
    """of a training step, from a run's log (must be given)"""
    stage: int = 0
    """number of the stage, from 0"""
    batches: int = 20
    """to time, after the first"""

    def __post_init__(self) -> None:
        if self.step_seconds is not None and not self.step_seconds > 0:
            raise ConfigError(f"step_seconds must be above 0, not {self.step_seconds}")
        if self.batches < 1:
            raise ConfigError(f"batches must be at least 1, not {self.batches}")


@dataclass(frozen=True)
class Measurement:
    """One video, made in a fresh process."""

    frames: int
    cache: str  # "cold" or "warm"
    start_seconds: float  # imports, loading the model, and encoding the prompt
    compile_seconds: float  # until the first segments and two decoded chunks are done, less their running time
    first_frames_seconds: float  # until the first frames of a video are there, when all is compiled
    generate_seconds: float  # all frames, into a file with its positions, without start and compilation
    frames_per_second: float
    peak_memory_mb: float  # of the process: resident, or of the device where it tells


def measure(checkpoint: str, prompt: str, frames: int, segment: int, dtype: str, began: float) -> dict:
    """Make and write one video in this process, which was started at the time `began` (seconds), and measure it."""
    model = load(checkpoint, dtype=dtype)
    request = make_request(model.config, prompt, frames=frames, segment=segment, dtype=dtype)
    (features,) = encode_prompts(model, request)
    loaded = time.time()
    # A video of two chunks runs every compiled program of a longer one (causal VAEs decode the first by one of its
    # own); the second time, nothing is compiled.
    short, two_chunks = [], decoded_frames(2 * model.config.window.chunk_size, model.config.vae)
    first = math.nan
    for _ in range(2):
        started = time.perf_counter()
        stream = generate_stream(model, prompt, two_chunks, segment=segment, dtype=dtype)
        next(stream)
        first = time.perf_counter() - started
        list(stream)
        short.append(time.perf_counter() - started)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:  # as the command writes it, with the positions beside it
        if not Recording(model, request, features, [Path(folder) / "video.mp4"], crf=18).run(progress=False):
            raise KeyboardInterrupt
    seconds = time.perf_counter() - started
    return {
        "frames": frames,
        "start_seconds": loaded - began,
        "compile_seconds": short[0] - short[1],
        "first_frames_seconds": first,
        "generate_seconds": seconds,
        "frames_per_second": frames / seconds,
        "peak_memory_mb": _peak_memory_mb(),
    }


def _peak_memory_mb() -> float:
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"] / 1e6
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def benchmark(config: BenchmarkConfig) -> list[Measurement]:
    """Measure the first length with a cold and a warm cache, and the others with a warm one."""
    runs = [(config.frames[0], "cold"), *((frames, "warm") for frames in config.frames)]
    measurements = []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PAVDM_CACHE": cache}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would come before the empty one
        for frames, state in runs:
            settings = [config.checkpoint, config.prompt, str(frames), str(config.segment), config.dtype]
            request = [*settings, repr(time.time())]
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
            f"{'frames':>7} {'cache':>6} {'start s':>8} {'compile s':>10} {'first s':>8} {'generate s':>11} "
            f"{'frames/s':>9} {'peak MB':>8}"
        )
    print(
        f"{measurement.frames:7} {measurement.cache:>6} {measurement.start_seconds:8.1f} "
        f"{measurement.compile_seconds:10.1f} {measurement.first_frames_seconds:8.2f} "
        f"{measurement.generate_seconds:11.1f} "
        f"{measurement.frames_per_second:9.1f} {measurement.peak_memory_mb:8.0f}",
        flush=True,
    )


def benchmark_loader(settings: LoaderConfig, config: TrainConfig) -> float:
    """Print the speed of the loader in clips per second, without the time of computing cached latents."""
    from pavdm_jax.training.loop import make_batches  # slow to import, and wanted here only
    from pavdm_jax.training.start import start_model

    if settings.step_seconds is None:
        raise ConfigError("--step-seconds is missing; give those of a training step, from a run's log")
    if not 0 <= settings.stage < len(config.stages):
        raise ConfigError(f"stage {settings.stage}: the config has {len(config.stages)} stages")
    stage = config.stages[settings.stage]
    feed = make_batches(config, stage, start_model(config), config.seed, 0)
    started = time.perf_counter()
    next(feed)
    first = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(settings.batches):
        batch = next(feed)
    for array in batch.values():
        getattr(array, "block_until_ready", lambda: None)()
    seconds = (time.perf_counter() - started) / settings.batches
    wanted, found = stage.batch_size / settings.step_seconds, stage.batch_size / seconds
    print(
        f"first batch after {first:.2f} s; then {found:.1f} clips/s, "
        f"{1000 * seconds:.1f} ms a batch of {stage.batch_size}"
    )
    print(
        f"a step of {settings.step_seconds:g} s takes {wanted:.1f} clips/s: "
        f"the loader is {found / wanted:.1f} times as fast"
    )
    if found < wanted:
        print("steps wait for the loader; give the data workers, or compute the latents beforehand")
    return found


def run(arguments: Sequence[str]) -> int:
    """Run the measurement of the command line; returns the exit code."""
    if arguments[:1] == ["--one"]:  # how it calls itself for a single measurement
        enable_cache()
        checkpoint, prompt, frames, segment, dtype, began = arguments[1:]
        print(json.dumps(measure(checkpoint, prompt, int(frames), int(segment), dtype, float(began))))
    elif any(argument.split("=")[0].replace("_", "-") == "--compile-only" for argument in arguments):
        jax.config.update("jax_platforms", "cpu")  # an installed compiler for TPUs or GPUs is no TPU or GPU
        asked = read_command(CompileConfig, arguments, PROGRAM, ahead_of_time.__doc__)
        print(HEADER)
        compile_only(asked, each=lambda result: print(row(result), flush=True))
    elif "--real" in arguments:
        rest = [argument for argument in arguments if argument != "--real"]
        measure_real(read_command(on_chip.RealConfig, rest, f"{PROGRAM} --real", on_chip.__doc__))
    elif any(argument.split("=")[0] == "--against" for argument in arguments):
        jax.config.update("jax_platforms", "cpu")  # where PyTorch computes, too
        measure_against(read_command(against.AgainstConfig, arguments, PROGRAM, against.__doc__))
    elif "--loader" in arguments:
        rest = [argument for argument in arguments if argument != "--loader"]
        benchmark_loader(*read_command_and_config(LoaderConfig, rest, f"{PROGRAM} --loader", benchmark_loader.__doc__))
    else:
        measure_all(read_command(BenchmarkConfig, arguments, PROGRAM, __doc__))
    return 0


def measure_real(config: on_chip.RealConfig) -> None:
    """Measure this machine's accelerator, and write JSON when `output` is given."""
    _write(config.output, on_chip.measure_chip(config, lambda line: print(line, flush=True)))


def measure_against(config: against.AgainstConfig) -> None:
    """Measure this and the reference's code, and write JSON when `output` is given."""
    rows = against.measure_against(config, lambda line: print(line, flush=True))
    _write(config.output, _machine() | {"rows": rows})


def measure_all(config: BenchmarkConfig) -> None:
    """Measure, and write JSON when `output` is given."""
    measurements = benchmark(config)
    _write(config.output, _machine() | {"measurements": [asdict(measurement) for measurement in measurements]})


def _machine() -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _write(output: str | None, numbers: dict[str, Any]) -> None:
    """Write JSON where a file is named."""
    if output is not None:
        storage.write(Path(output), (json.dumps(numbers, indent=1) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    exit_with(lambda: run(given), interrupted="interrupted")


if __name__ == "__main__":
    main()
