"""PyTorch tensors ↔ parameter trees, by tables of names.

A table is a list of `Rule`s. `{i}` in a source name stands for a layer number: such tensors are stacked along a new
first axis, which is how `nn.scan` keeps the parameters of repeated layers.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import einops
import numpy as np

from pavdm_jax.errors import ListError
from pavdm_jax.models.model import flatten

CONSTANT_TOLERANCE = 0.01
"""Relative; a constant may be stored in bfloat16, which has 8 bits."""


@dataclass(frozen=True)
class Rule:
    """One line of a table: the place of the tensor `source` in the parameter tree, and its axis order.

    Attributes:
      source: PyTorch name; may contain one `{i}`, the layer number.
      target: slash-separated path in the parameter tree; empty for constants of the architecture, which are not stored.
      order: an einops pattern from the PyTorch axes to ours, for instance "o i -> i o"; empty where they are equal.
      sizes: axis sizes that the pattern does not determine.
      alias: a second name of the same tensor; files may contain one or both.
      constant: the values of a constant.
    """

    source: str
    target: str
    order: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    alias: str = ""
    constant: tuple[float, ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether the parameter is stacked by layer."""
        return "{i}" in self.source

    def name(self, layer: int) -> str:
        """The PyTorch name of a layer's tensor."""
        return self.source.replace("{i}", str(layer))

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """A PyTorch tensor in our axis order."""
        return einops.rearrange(tensor, self.order, **self.sizes) if self.order else tensor

    def to_pytorch(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_ours`."""
        if not self.order:
            return array
        ours = self.order.split("->")
        return einops.rearrange(array, f"{ours[1]} -> {ours[0]}", **self.sizes)

    def shape_here(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a PyTorch tensor in our axis order; the same shape where the pattern does not fit it."""
        try:  # strides of 0: nothing is allocated
            return self.to_ours(np.broadcast_to(np.zeros((), np.uint8), shape)).shape
        except (einops.EinopsError, ValueError):
            return tuple(shape)

    def shape_there(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The PyTorch shape of one tensor, from the shape of its parameter."""
        one = shape[1:] if self.stacked else shape
        return self.to_pytorch(np.broadcast_to(np.zeros((), np.uint8), one)).shape

    def check_constant(self, name: str, values: np.ndarray) -> None:
        """Check the values of a constant.

        Raises:
          WeightsError: they differ by more than rounding from those of the architecture.
        """
        if self.constant and not np.allclose(np.asarray(values, np.float32), self.constant, CONSTANT_TOLERANCE, 0):
            raise WeightsError(
                f"{name} holds other values than this architecture's; these weights are of another network"
            )


class WeightsError(ListError):
    """Weights that do not fit the architecture; the message lists all mismatches, one per line."""


@dataclass(frozen=True)
class Assignment:
    """The place of one tensor: its rule, and the layer of a stacked parameter (0 for others)."""

    rule: Rule
    layer: int


def assign(rules: list[Rule], shapes: Mapping[str, tuple[int, ...]], expected: Any) -> dict[str, Assignment]:
    """Find the place of every tensor from names and shapes alone.

    Args:
      rules: the table of the model part.
      shapes: PyTorch name → shape of all tensors in the files.
      expected: the tree of `jax.ShapeDtypeStruct` of the parameters.

    Returns:
      PyTorch name → its place, except for tensors that repeat another one under an alias.

    Raises:
      WeightsError: tensors are unknown, missing or of another shape; the message lists all of them.
    """
    parameters = flatten(expected)
    names, problems = _match(rules, shapes)
    found: dict[str, Assignment] = {}
    for rule in rules:
        if rule.target:
            placed, wrong = _place_parameter(rule, names[rule.source], shapes, tuple(parameters[rule.target].shape))
        else:
            placed, wrong = _place_constant(rule, names[rule.source], shapes)
        found |= placed
        problems += wrong
    unfilled = sorted(set(parameters) - {rule.target for rule in rules})
    problems += [f"no rule fills the parameter {target}" for target in unfilled]
    if problems:
        raise WeightsError("the weights do not fit this architecture:\n  " + "\n  ".join(problems))
    return found


def _match(rules: list[Rule], shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, dict[int, str]], list[str]]:
    """For the source of each rule, the matching tensor names by layer; and a problem for each tensor without a rule."""
    names: dict[str, dict[int, str]] = {rule.source: {} for rule in rules}
    patterns = [(rule, _pattern(rule.source)) for rule in rules]
    aliases = {rule.alias: rule for rule in rules if rule.alias}
    problems = []
    for name, shape in shapes.items():
        if name in aliases:
            rule = aliases[name]
            if rule.source not in shapes:
                names[rule.source][0] = name
            continue
        match = next(((rule, m) for rule, pattern in patterns if (m := pattern.fullmatch(name))), None)
        if match is None:
            problems.append(f"unknown tensor {name} {list(shape)}")
        else:
            rule, groups = match
            names[rule.source][int(groups["i"]) if rule.stacked else 0] = name
    return names, problems


def _place_constant(
    rule: Rule, names: Mapping[int, str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Assignment], list[str]]:
    """The place of a constant, which may be absent, and a problem if its shape is wrong."""
    length = len(rule.constant)
    problems = [
        f"{name} has shape {list(shapes[name])}; [{length}] is needed"
        for name in names.values()
        if rule.constant and tuple(shapes[name]) != (length,)
    ]
    return {name: Assignment(rule, 0) for name in names.values()}, problems


def _place_parameter(
    rule: Rule, names: Mapping[int, str], shapes: Mapping[str, tuple[int, ...]], shape: tuple[int, ...]
) -> tuple[dict[str, Assignment], list[str]]:
    """The places of the tensors of a parameter, and a problem for each one that is missing, extra or misshapen."""
    wanted, needed = (range(shape[0]), shape[1:]) if rule.stacked else (range(1), shape)
    absent = [layer for layer in wanted[: len(names) + 10] if layer not in names]
    if len(absent) < 10:
        problems = [f"missing tensor {rule.name(layer)}" for layer in absent]
    else:  # a config.json may promise any number of layers
        problems = [f"missing tensor {rule.name(absent[0])} and most others of {len(wanted)} layers"]
    problems += [f"unknown tensor {name} {list(shapes[name])}" for layer, name in names.items() if layer not in wanted]
    found: dict[str, Assignment] = {}
    for layer, name in names.items():
        here = rule.shape_here(shapes[name])
        if layer in wanted and here != needed:
            problems.append(
                f"{name} has shape {list(shapes[name])}, which is {list(here)} here; {list(needed)} is needed"
            )
        elif layer in wanted:
            found[name] = Assignment(rule, layer)
    return found, problems


def names_of(rules: list[Rule], expected: Any) -> Iterator[tuple[str, Rule, int]]:
    """The PyTorch name, rule and layer of every tensor of the parameters `expected`, in the order of the table."""
    flat = flatten(expected)
    for rule in rules:
        if rule.target:
            for layer in range(flat[rule.target].shape[0] if rule.stacked else 1):
                yield rule.name(layer), rule, layer


def _pattern(source: str) -> re.Pattern:
    return re.compile(re.escape(source).replace(r"\{i\}", r"(?P<i>0|[1-9]\d{0,5})"))


def linear(source: str, target: str, bias: bool = True) -> list[Rule]:
    """The rules of a `torch.nn.Linear` that becomes a `flax.linen.Dense`."""
    rules = [Rule(f"{source}.weight", f"{target}/kernel", "o i -> i o")]
    return rules + ([Rule(f"{source}.bias", f"{target}/bias")] if bias else [])
