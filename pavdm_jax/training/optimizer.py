"""AdamW and its learning rate."""

import optax

from pavdm_jax.train_config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Step → rate: a linear warm-up, then a cosine down to zero over the stage's `steps` (or the same rate for ever)."""
    warmup = min(config.warmup_steps, steps)
    if config.decay:
        return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, warmup + 1))
    return optax.linear_schedule(0.0, config.learning_rate, warmup)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW after clipping by the global norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, steps), b2=config.beta2, eps=config.epsilon, weight_decay=config.weight_decay
        ),
    )
