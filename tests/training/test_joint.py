"""Training on images and videos: one run of the tiny model, its log, and the same run interrupted."""

import csv
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.nightly import nightly
from support.small_videos import gradient, write_csv, write_video
from support.tiny_model import TINY, tiny_model

from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.diffusion.flow import shift_levels
from pavdm_jax.models.model import abstract_params
from pavdm_jax.models.vae import VideoVAE
from pavdm_jax.training import loop
from pavdm_jax.training.config import (
    JointReconstruction,
    MixedDiffusion,
    OptimizerConfig,
    ProgressiveDiffusion,
    SpatialReconstruction,
    Stage,
    TemporalReconstruction,
    TrainConfig,
    UniformDiffusion,
    VideoData,
)
from pavdm_jax.training.denoising import draw_levels
from pavdm_jax.training.log import StageLog
from pavdm_jax.training.loss import by_kind
from pavdm_jax.training.program import make_loss
from pavdm_jax.training.reconstruction import measure_normalisation, reconstruction_loss, to_unit

SPEED = OptimizerConfig(3e-3, warmup_steps=2, epsilon=1e-8, decay=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A start model, and a manifest of two videos and three images."""
    folder = tmp_path_factory.mktemp("joint")
    save_model(folder / "start", tiny_model())
    for n in range(2):
        write_video(folder / f"video{n}.mp4", gradient(70, 64, 96, n))
    for n in range(3):
        Image.fromarray(gradient(1, 64, 96, n)[0]).save(folder / f"image{n}.png")
    rows = [f"video{n}.mp4,a video" for n in range(2)] + [f"image{n}.png,an image" for n in range(3)]
    write_csv(folder / "mixed.csv", rows)
    return folder


def config(folder, name, save_every=1000):
    data = VideoData(str(folder / "mixed.csv"), frames=68, image_share=0.5)
    stage = Stage("joint", ProgressiveDiffusion(caption_dropout=0.0), data, ("stdit3",), 30, 2, SPEED)
    start = str(folder / "start")
    return TrainConfig(TINY, (stage,), str(folder / name), init_from=start, save_every=save_every, log_every=2)


def read_log(run):
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: x for name, x in row.items() if name not in ("seconds", "samples_per_second")} for row in rows]


@nightly
def test_both_losses_are_logged_and_fall_and_a_run_that_was_cut_off_ends_like_one_that_was_not(folder, monkeypatch):
    whole = loop.fit(config(folder, "whole"))
    rows = read_log(folder / "whole")
    for row in rows:  # every second batch is of images
        loss, images, videos = (float(row[name]) for name in ("loss", "loss_images", "loss_videos"))
        assert images != videos
        np.testing.assert_allclose(loss, (images + videos) / 2, rtol=1e-5)
    for name in ("loss_images", "loss_videos"):
        losses = [float(row[name]) for row in rows]
        assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])

    class Killed(Exception):
        pass

    write = StageLog.write

    def killing(log, step, metrics):
        write(log, step, metrics)
        if step == 4:
            raise Killed

    monkeypatch.setattr(StageLog, "write", killing)
    with pytest.raises(Killed):
        loop.fit(config(folder, "cut", save_every=3))
    monkeypatch.setattr(StageLog, "write", write)
    cut = loop.fit(config(folder, "cut"))  # goes on from step 3, between two lines of the log
    jax.tree.map(np.testing.assert_array_equal, cut.params, whole.params)
    assert read_log(folder / "cut") == rows


@pytest.mark.parametrize("objective", [TemporalReconstruction(), JointReconstruction(decoded_frames=2)])
def test_the_vae_may_train_on_both(objective):
    def reported(frames):
        batch = {"frames": jax.ShapeDtypeStruct((2, frames, 16, 24, 3), jnp.uint8)}
        loss = by_kind(reconstruction_loss(TINY.vae, objective))
        return jax.eval_shape(loss, abstract_params(TINY), batch, jax.random.key(0))[1]

    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, reported(1), reported(17)))


def test_the_normalisation_is_measured_on_batches_of_the_first_one_s_shape():
    params = tiny_model().params
    videos = [{"frames": gradient(17, 16, 24, n)[None]} for n in range(2)]
    images = [{"frames": gradient(1, 16, 24, n)[None]} for n in range(2)]
    found, alone = (measure_normalisation(TINY.vae, params, batches) for batches in (videos + images, videos))
    jax.tree.map(np.testing.assert_array_equal, found["vae"], alone["vae"])
    encode = jax.jit(lambda frames: VideoVAE(TINY.vae).apply({"params": alone["vae"]}, frames, method="encode"))
    latents = np.concatenate([encode(to_unit(jnp.asarray(video["frames"]))) for video in videos])
    np.testing.assert_allclose(latents.mean((0, 1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std((0, 1, 2, 3)), 1, rtol=1e-4)


@pytest.mark.parametrize("kind", [SpatialReconstruction, TemporalReconstruction, JointReconstruction])
def test_the_divergence_of_the_posterior_counts_by_its_weight(kind):
    params, batch = tiny_model().params, {"frames": gradient(17, 16, 24, 0)[None]}
    (none, report), (some, _) = (
        jax.jit(reconstruction_loss(TINY.vae, kind(weight)))(params, batch, jax.random.key(0)) for weight in (0.0, 2.0)
    )
    divergence = float(report.metrics["kl"][0] / report.metrics["kl"][1])
    assert divergence > 0
    np.testing.assert_allclose(some - none, 2 * divergence, rtol=1e-3)


@pytest.mark.parametrize(
    "objective",
    [
        UniformDiffusion(caption_dropout=0.5),
        ProgressiveDiffusion(caption_dropout=0.5),
        MixedDiffusion((UniformDiffusion(caption_dropout=0.5), ProgressiveDiffusion(caption_dropout=0.5)), (1, 1)),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_an_image_has_one_level_drawn_as_for_plain_diffusion(objective):
    """Of a logit-normal distribution, moved by the noise shift of a single latent frame; none is kept clean."""
    drawn, dropout = draw_levels(TINY, objective)(jax.random.key(0), 4000, 1)
    assert drawn.levels.shape == (4000, 1) and np.asarray(drawn.loss_mask == 1).all()
    assert np.asarray(drawn.num_valid == 1).all() and np.asarray(dropout == 0.5).all()
    expected = shift_levels(jnp.asarray([0.5]), TINY.height, TINY.width, 1, TINY.noise_base_size)
    np.testing.assert_allclose(np.median(drawn.levels), expected[0], rtol=0.05)


def test_a_stage_without_images_logs_what_it_did_before(folder):
    given = config(folder, "any")
    (stage,) = given.stages
    batch = {"latents": jax.ShapeDtypeStruct((2, 20, 2, 3, 4), jnp.float32), "fps": jnp.ones(2)}
    batch |= {"ids": jnp.ones((2, 8), jnp.int32), "length": jnp.ones(2, jnp.int32)}

    def logged(share):
        loss = make_loss(given, replace(stage, data=replace(stage.data, image_share=share)), None)
        return set(jax.eval_shape(loss, abstract_params(TINY), batch, jax.random.key(0))[1].metrics)

    assert logged(0.5) - logged(0.0) == {"loss_images", "loss_videos"}
