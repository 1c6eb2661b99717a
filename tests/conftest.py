"""Strict by default: implicit rank promotion raises here, warnings are errors (pyproject.toml)."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
