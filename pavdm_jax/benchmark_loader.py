"""The loader against the step that it must feed: `python -m pavdm_jax.benchmark_loader --config configs/x.py --step-seconds 0.8`."""

import sys
import time
from dataclasses import dataclass

from pavdm_jax.cli import read_fields
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import read_config
from pavdm_jax.training.loop import make_batches, start_model


@dataclass(frozen=True)
class LoaderConfig:
    """Which stage's batches to time, and what they have to keep up with."""

    config: str  # a config file of `pavdm_jax.train`
    step_seconds: float  # of a training step, from a run's log; 0.8 for instance
    stage: int = 0  # number of the stage, from 0
    batches: int = 20  # to time, after the first

    def __post_init__(self) -> None:
        if not self.step_seconds > 0:
            raise ConfigError(f"step_seconds must be above 0, not {self.step_seconds}")
        if self.batches < 1:
            raise ConfigError(f"batches must be at least 1, not {self.batches}")


def benchmark_loader(settings: LoaderConfig) -> float:
    """Print the loader's speed; clips a second. Latents that a stage keeps are computed first, untimed."""
    config = read_config(settings.config)
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
        f"first batch after {first:.2f} s; then {found:.1f} clips/s, {1000 * seconds:.1f} ms a batch of {stage.batch_size}"
    )
    print(
        f"a step of {settings.step_seconds:g} s takes {wanted:.1f} clips/s: the loader is {found / wanted:.1f} times as fast"
    )
    if found < wanted:
        print("steps wait for the loader; give the data workers, or compute the latents beforehand")
    return found


def main() -> None:
    """The command line; user mistakes print one line and exit with 2."""
    try:
        benchmark_loader(read_fields(LoaderConfig, sys.argv[1:], "benchmark_loader", __doc__))
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
