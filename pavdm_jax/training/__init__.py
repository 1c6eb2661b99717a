"""Losses, state and loop of training; the entry point is `pavdm_jax.train`."""
