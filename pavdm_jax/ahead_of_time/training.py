"""Compiling training steps for chips of other machines: `pavdm train --config FILE --compile-only v4:4x4x8`.

Only shapes are needed: no weights are read, and nothing is run. Memory is what the compiler plans to use, FLOPs are
counted, and times are estimates.
"""

import jax
import jax.numpy as jnp

from pavdm_jax.ahead_of_time.chips import GIB, parse_topology, topology_devices
from pavdm_jax.ahead_of_time.compile import Report, compile_program
from pavdm_jax.ahead_of_time.generation import UTILISATION
from pavdm_jax.data.check import check_data
from pavdm_jax.data.config import LatentData
from pavdm_jax.distributed.mesh import MeshConfig, make_mesh, train_mesh, use_mesh
from pavdm_jax.distributed.partitioning import batch_sharding, replicated
from pavdm_jax.errors import ConfigError
from pavdm_jax.flops import peak_flops, train_flops
from pavdm_jax.geometry import latent_size
from pavdm_jax.models.model import abstract_params
from pavdm_jax.training.config import Stage, TrainConfig
from pavdm_jax.training.denoising import DiffusionObjective, clip_chunks, clip_latents
from pavdm_jax.training.distillation import teacher_flops
from pavdm_jax.training.parameters import trainable
from pavdm_jax.training.program import Program, make_program, used_frozen

RECOMPUTED = {"none": 1.0, "attention": 4 / 3, "full": 4 / 3}
"""FLOPs of a step with recomputation (remat), relative to one without: the forward pass is a third."""


def abstract_batch(config: TrainConfig, stage: Stage) -> dict:
    """Shapes of a batch of a diffusion stage, with clips of the model's own size.

    With precomputed latents, the batch has caption features, too, unless the stage trains the text encoder.
    """
    model, b = config.model, stage.batch_size
    assert isinstance(stage.objective, DiffusionObjective)
    frames = clip_chunks(model, stage.objective) * model.window.chunk_size
    cell = (*latent_size(model.height, model.width, model.vae), model.vae.latent_channels)
    shape = jax.ShapeDtypeStruct
    batch = {"latents": shape((b, frames, *cell), jnp.float32), "fps": shape((b,), jnp.float32)}
    batch |= {"ids": shape((b, model.text.max_tokens), jnp.int32), "length": shape((b,), jnp.int32)}
    if isinstance(stage.data, LatentData) and not any(name.split("/")[0] == "t5" for name in stage.train):
        batch["features"] = shape((b, model.text.max_tokens, model.t5.d_model), jnp.float32)
    return batch


def abstract_program(config: TrainConfig, stage: Stage, mesh) -> tuple[Program, tuple]:
    """A stage's programs, and the shapes of its step's arguments with shardings over a mesh, which may be abstract."""
    batch = abstract_batch(config, stage)
    params = abstract_params(config.model)
    parameters = trainable(params, stage)
    frozen = used_frozen(config.model, parameters, params, stage, batch)
    program = make_program(config, stage, parameters._replace(frozen=frozen), batch, mesh)

    def place(x: jax.ShapeDtypeStruct, sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    rows = batch_sharding(mesh, stage.batch_size)
    key = place(jax.eval_shape(lambda: jax.random.key(0)), replicated(mesh))
    batch = jax.tree.map(lambda x: place(x, rows), batch)
    return program, (program.state, jax.tree.map(place, frozen, program.frozen), batch, key)


def compile_train(config: TrainConfig, topology: str) -> None:
    """Compile the step of every diffusion stage, and print its memory and FLOPs.

    Raises:
      ConfigError: the compiler is not installed, the topology is unknown, the mesh does not fit it, a step does not fit
        the memory, clips are too short, or no stage trains the transformer.
    """
    stages = [stage for stage in config.stages if isinstance(stage.objective, DiffusionObjective)]
    if not stages:
        raise ConfigError("--compile-only is for stages that train the transformer; this config has none")
    _, chip = parse_topology(topology)
    for stage in stages:
        check_data(stage.data, clip_latents(config.model, stage.objective), config.model, files=False)
    devices = topology_devices(topology)
    problems = []
    for stage in stages:
        sizes = train_mesh(config.mesh, stage.batch_size // stage.optimizer.accumulate, len(devices))
        mesh = make_mesh(sizes, devices)
        program, arguments = abstract_program(config, stage, mesh)
        with use_mesh(mesh):
            report = compile_program(program.step, *arguments).within(chip)
        shape = arguments[2]["latents"].shape
        peak = peak_flops(chip.kind)
        assert peak is not None, chip  # the table of peaks has every chip
        print("\n".join(describe(config, stage, topology, sizes, report, shape, peak * len(devices))), flush=True)
        if report.problem:
            problems.append(f"stage {stage.name} {report.problem}")
    if problems:
        raise ConfigError("; ".join(problems) + "; use more chips along fsdp, a smaller batch, or remat full")


def describe(
    config: TrainConfig, stage: Stage, topology: str, mesh: MeshConfig, report: Report, shape: tuple, peak: float
) -> list[str]:
    """The lines to print for a compiled step; `peak` is the peak FLOP/s of all chips."""
    limit = parse_topology(topology)[1].memory_gib
    trained, of_teacher = (
        train_flops(config.model.transformer, shape),
        teacher_flops(config.model, stage.objective, shape),
    )
    model_flops, done = trained + of_teacher, trained * RECOMPUTED[config.remat] + of_teacher
    seconds = done / (UTILISATION * peak)
    memory = report.problem or (
        f"{report.total / GIB:.2f} GiB of {limit} (arguments {report.arguments / GIB:.2f}, "
        f"temporary {report.temporaries / GIB:.2f})"
    )
    collectives = ", ".join(f"{count} {kind}" for kind, count in report.collectives.items()) or "none"
    return [
        f"stage {stage.name} on {topology}: {mesh.size} chips, mesh {mesh}, remat {config.remat}, "
        f"{config.compute_dtype}",
        f"  batch                  {stage.batch_size} clips of {shape[1]} latent frames of {shape[2]}x{shape[3]}",
        f"  memory of a chip       {memory}",
        f"  collectives in text    {collectives} (those in the loop over layers run once a layer)",
        f"  model FLOPs a step     {model_flops / 1e15:.2f} PFLOP, transformer; {done / 1e15:.2f} with what is "
        "computed again",
        f"  estimate of step time  {seconds:.2f} s, MFU {model_flops / (seconds * peak):.0%}: not measured; "
        f"assumes {UTILISATION:.0%} of the peak for all arithmetic",
        f"  compiled in            {report.compile_seconds:.0f} s",
    ]
