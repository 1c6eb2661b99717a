"""Training losses of the video VAE, one for each of its three stages, as Open-Sora trained its VAE.

Each is a `loss.Loss` of a batch with `frames`, uint8 `[b, f, h, w, 3]`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pavdm_jax.config import VAEConfig
from pavdm_jax.models.vae import VideoVAE, sample_posterior
from pavdm_jax.training.config import JointReconstruction, SpatialReconstruction, TemporalReconstruction
from pavdm_jax.training.loss import Loss, LossReport, sample_means, scalar_metric


def reconstruction_loss(
    config: VAEConfig, objective: SpatialReconstruction | TemporalReconstruction | JointReconstruction
) -> Loss:
    """The loss of an objective."""
    match objective:
        case SpatialReconstruction(kl_weight):
            return spatial_loss(config, kl_weight)
        case TemporalReconstruction(kl_weight):
            return temporal_loss(config, kl_weight)
        case JointReconstruction(kl_weight, decoded_frames):
            return joint_loss(config, kl_weight, decoded_frames)


def to_unit(frames: jax.Array) -> jax.Array:
    """Pixels, uint8 of any shape, to float32 in -1..1."""
    return frames.astype(jnp.float32) / 127.5 - 1.0


def psnr(ours: jax.Array, theirs: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, over all values of images in -1..1."""
    return -10.0 * jnp.log10(jnp.mean(jnp.square((jnp.clip(ours, -1, 1) - theirs) / 2)) + 1e-12)


def _kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL divergence from a standard normal for each sample [b], as the mean over latent values."""
    log_variance = jnp.clip(log_variance, -30.0, 20.0)
    return 0.5 * sample_means(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)


def _pixel_error(ours: jax.Array, theirs: jax.Array) -> jax.Array:
    return sample_means(jnp.abs(ours - theirs) + jnp.square(ours - theirs))


def _report(per_sample: jax.Array, **metrics: jax.Array) -> tuple[jax.Array, LossReport]:
    return jnp.mean(per_sample), LossReport(
        per_sample, {name: scalar_metric(jnp.mean(value)) for name, value in metrics.items()}
    )


def spatial_loss(config: VAEConfig, kl_weight: float) -> Loss:
    """The loss of `SpatialReconstruction`: single frames through the spatial VAE."""
    vae: Any = VideoVAE(config)  # what its `apply` gives depends on the method

    def loss(params, batch, key):
        variables = {"params": params["vae"]}
        b = batch["frames"].shape[0]
        images = to_unit(batch["frames"]).reshape(-1, *batch["frames"].shape[2:])
        mean, log_variance = vae.apply(variables, images, method=lambda vae, x: vae.spatial.encode(x))
        scaling = config.spatial.scaling_factor
        latents = sample_posterior(mean / scaling, log_variance, key) * scaling
        decoded = vae.apply(variables, latents, method=lambda vae, z: vae.spatial.decode(z))
        error, divergence = _pixel_error(decoded, images), _kl(mean / scaling, log_variance)
        per_sample = sample_means((error + kl_weight * divergence).reshape(b, -1))
        return _report(per_sample, psnr=psnr(decoded, images), kl=divergence)

    return loss


def temporal_loss(config: VAEConfig, kl_weight: float) -> Loss:
    """The loss of `TemporalReconstruction`: spatial latents through the temporal VAE.

    Errors are relative to the standard deviation of the spatial latents.
    """
    vae: Any = VideoVAE(config)  # what its `apply` gives depends on the method

    def loss(params, batch, key):
        variables = {"params": params["vae"]}
        target = jax.lax.stop_gradient(vae.apply(variables, to_unit(batch["frames"]), method="encode_spatial"))
        mean, log_variance = vae.apply(variables, target, method="encode_micro")
        latents = sample_posterior(mean, log_variance, key)
        decoded = vae.apply(variables, latents, target.shape[1], method="decode_temporal")
        spread = jnp.std(target, axis=(0, 1, 2, 3), keepdims=True)
        error, divergence = _pixel_error(decoded / spread, target / spread), _kl(mean, log_variance)
        mse = jnp.square((decoded - target) / spread)
        return _report(error + kl_weight * divergence, latent_mse=mse, kl=divergence)

    return loss


def joint_loss(config: VAEConfig, kl_weight: float, decoded_frames: int | None = None) -> Loss:
    """The loss of `JointReconstruction`: micro clips through the whole VAE.

    `decoded_frames` random frames are compared in pixels; None: all. The spatial decoder is most of the cost, and
    decodes frames one by one; with fewer frames, more clips fit into the same time.
    """
    vae: Any = VideoVAE(config)  # what its `apply` gives depends on the method

    def loss(params, batch, key):
        variables = {"params": params["vae"]}
        posterior_key, frame_key = jax.random.split(key)
        frames = to_unit(batch["frames"])
        spatial = vae.apply(variables, frames, method="encode_spatial")
        mean, log_variance = vae.apply(variables, spatial, method="encode_micro")
        latents = sample_posterior(mean, log_variance, posterior_key)
        decoded = vae.apply(variables, latents, frames.shape[1], method="decode_temporal")
        compared = jax.random.permutation(frame_key, frames.shape[1])[:decoded_frames]
        decoded = vae.apply(variables, decoded[:, compared], method="decode_spatial")
        target, divergence = frames[:, compared], _kl(mean, log_variance)
        return _report(
            _pixel_error(decoded, target) + kl_weight * divergence, psnr=psnr(decoded, target), kl=divergence
        )

    return loss


def measure_normalisation(config: VAEConfig, params: dict, batches: list[dict]) -> dict:
    """`params` with the VAE's shift and scale set to the mean and the deviation of its latents on `batches`, of which
    those count that have the shape of the first (others are of images, or of another aspect ratio). Clips are encoded
    one by one: a batch may be for many devices."""
    vae: Any = VideoVAE(config)  # what its `apply` gives depends on the method

    @jax.jit
    def latents(frames):
        spatial = vae.apply({"params": params["vae"]}, to_unit(frames), method="encode_spatial")
        return vae.apply({"params": params["vae"]}, spatial, method="encode_temporal")

    shape = batches[0]["frames"].shape
    alike = [batch["frames"] for batch in batches if batch["frames"].shape == shape]
    values = jnp.concatenate([latents(clip[None]) for frames in alike for clip in frames])
    shift, scale = values.mean((0, 1, 2, 3)), values.std((0, 1, 2, 3))
    return {**params, "vae": {**params["vae"], "shift": shift, "scale": scale}}
