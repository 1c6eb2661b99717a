"""What the loss of the published architectures should be: a wrong start shows in the first steps, not after days.

The values are those that users of Open-Sora report (hpcaitech/Open-Sora issue 573).
"""

from pavdm_jax.config import OPEN_SORA_1_2, STDIT3_3B, ModelConfig

FIRST_STEPS = 50
"""Steps after which the smoothed loss can be judged."""


def loss_warning(config: ModelConfig, loaded: bool, loss: float) -> str | None:
    """A warning about the smoothed loss of a diffusion stage's first steps, or None if it is as expected or nothing is known.

    Args:
      config: the model's; only the published architectures, on the published VAE, have known losses.
      loaded: whether training began from a model on disk.
      loss: mean over samples and steps.
    """
    if config.stdit3 not in (OPEN_SORA_1_2.stdit3, STDIT3_3B) or config.vae != OPEN_SORA_1_2.vae:
        return None
    if loss > 3:
        return f"the loss is {loss:.2f}; 4 to 5 is that of weights that were not loaded: check init_from and the latents' normalisation"
    if loaded and loss > 0.8:
        return f"the loss is {loss:.2f}, about that of a fresh model; a good base shows 0.4 to 0.5: check init_from"
    if loss < 0.1:
        return f"the loss is {loss:.2f}; even a good base shows 0.4 to 0.5: check that the latents are not constant"
    return None
