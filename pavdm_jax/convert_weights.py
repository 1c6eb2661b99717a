"""PyTorch tensors ↔ parameter trees, by tables of names.

A table is a list of `Rule`s. `{i}` in a source name stands for a layer number: such tensors are stacked along a new first axis, which
is how `nn.scan` keeps the parameters of repeated layers. This is the only file that knows PyTorch's names and axis orders.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import einops
import numpy as np
from flax import traverse_util

from pavdm_jax.config import STDiT3Config, T5Config, VAEConfig


@dataclass(frozen=True)
class Rule:
    """One line of a table: where the tensor `source` goes, and in which axis order.

    Attributes:
      source: PyTorch name; may hold one `{i}`, the layer number.
      target: path in the parameter tree, with slashes; empty for tensors that are constants of the architecture (not stored).
      order: an einops pattern from the PyTorch axes to ours, for instance "o i -> i o".
      sizes: axis sizes that the pattern cannot infer.
    """

    source: str
    target: str
    order: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        return einops.rearrange(tensor, self.order, **self.sizes) if self.order else tensor

    def to_pytorch(self, array: np.ndarray) -> np.ndarray:
        if not self.order:
            return array
        ours = self.order.split("->")
        return einops.rearrange(array, f"{ours[1]} -> {ours[0]}", **self.sizes)


class WeightsError(ValueError):
    """Weights that do not fit the architecture; the message lists every mismatch."""


def to_params(rules: list[Rule], tensors: Mapping[str, np.ndarray], expected: Any) -> Any:
    """Build a parameter tree from named PyTorch tensors.

    Args:
      rules: the table of the model part.
      tensors: name → array; may be lazy, each tensor is read once.
      expected: the tree of `jax.ShapeDtypeStruct` that the architecture's `init` would give.

    Raises:
      WeightsError: unknown, missing or misshapen tensors; all of them are listed, nothing is skipped.
    """
    expected = traverse_util.flatten_dict(expected, sep="/")
    known: dict[str, tuple[Rule, int]] = {}  # source name → its rule and layer
    problems = []
    for name in tensors:
        match = next(((rule, m) for rule in rules if (m := _pattern(rule.source).fullmatch(name))), None)
        if match is None:
            problems.append(f"unknown tensor {name} {list(tensors[name].shape)}")
        else:
            known[name] = (match[0], int(match[1]["i"]) if "{i}" in match[0].source else 0)

    params = {}
    by_rule: dict[str, list[tuple[int, str]]] = {}
    for name, (rule, layer) in known.items():
        by_rule.setdefault(rule.source, []).append((layer, name))
    for rule in rules:
        if not rule.target:
            continue
        stacked = "{i}" in rule.source
        shape = expected[rule.target].shape
        layers = dict(by_rule.get(rule.source, []))
        wanted = range(shape[0]) if stacked else range(1)
        absent = [rule.source.replace("{i}", str(i)) for i in wanted if i not in layers]
        surplus = [name for i, name in layers.items() if i not in wanted]
        problems += [f"missing tensor {name}" for name in absent] + [f"unknown tensor {name}" for name in surplus]
        if absent or surplus:
            continue
        array = np.empty(shape, expected[rule.target].dtype)
        for i in wanted:
            slot = array[i] if stacked else array
            try:
                value = rule.to_ours(np.asarray(tensors[layers[i]]))
            except einops.EinopsError:
                value = np.asarray(tensors[layers[i]])
            if value.shape != slot.shape:
                problems.append(f"{layers[i]} has shape {list(tensors[layers[i]].shape)}, which is {list(value.shape)} here; {list(slot.shape)} is needed")
            else:
                slot[...] = value
        params[rule.target] = array
    unfilled = sorted(set(expected) - {rule.target for rule in rules})
    problems += [f"no rule fills the parameter {target}" for target in unfilled]
    if problems:
        raise WeightsError("the weights do not fit this architecture:\n  " + "\n  ".join(problems))
    return traverse_util.unflatten_dict(params, sep="/")


def to_tensors(rules: list[Rule], params: Any) -> dict[str, np.ndarray]:
    """The inverse of `to_params`: parameters under their PyTorch names, shapes and axis orders."""
    flat = traverse_util.flatten_dict(params, sep="/")
    tensors = {}
    for rule in rules:
        if rule.target and "{i}" in rule.source:
            for i, layer in enumerate(flat[rule.target]):
                tensors[rule.source.replace("{i}", str(i))] = rule.to_pytorch(np.asarray(layer))
        elif rule.target:
            tensors[rule.source] = rule.to_pytorch(np.asarray(flat[rule.target]))
    return tensors


def _pattern(source: str) -> re.Pattern:
    return re.compile(re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)"))


def linear(source: str, target: str, bias: bool = True) -> list[Rule]:
    """The rules of a `torch.nn.Linear` that becomes a `flax.linen.Dense`."""
    rules = [Rule(f"{source}.weight", f"{target}/kernel", "o i -> i o")]
    return rules + ([Rule(f"{source}.bias", f"{target}/bias")] if bias else [])


# --- tables -----------------------------------------------------------------------------------------------------------
