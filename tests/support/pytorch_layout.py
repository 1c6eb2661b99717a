"""Whole parameter trees in memory from PyTorch's tensors, and back, by the tables of names.

The package itself converts tensor by tensor.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from pavdm_jax.conversion.rules import Rule, assign, names_of


def to_params(rules: list[Rule], tensors: Mapping[str, np.ndarray], expected: Any) -> Any:
    """Build a parameter tree from named PyTorch tensors; see `assign` for the arguments and errors."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    flat = traverse_util.flatten_dict(expected, sep="/")
    params = {}
    for name, place in assign(rules, shapes, expected).items():
        rule = place.rule
        if not rule.target:
            rule.check_constant(name, tensors[name])
            continue
        if rule.target not in params:
            params[rule.target] = np.empty(flat[rule.target].shape, flat[rule.target].dtype)
        array = params[rule.target]
        (array[place.layer] if rule.stacked else array)[...] = rule.to_ours(np.asarray(tensors[name]))
    return traverse_util.unflatten_dict(params, sep="/")


def to_tensors(rules: list[Rule], params: Any) -> dict[str, np.ndarray]:
    """The inverse of `to_params`: parameters under their PyTorch names, shapes and axis orders."""
    flat = traverse_util.flatten_dict(params, sep="/")
    tensors = {}
    for name, rule, layer in names_of(rules, params):
        array = flat[rule.target][layer] if rule.stacked else flat[rule.target]
        tensors[name] = rule.to_pytorch(np.asarray(array))
    return tensors
