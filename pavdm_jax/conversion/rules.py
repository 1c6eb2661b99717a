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

from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import flatten

CONSTANT_TOLERANCE = 0.01
"""Relative; a constant may be stored in bfloat16, which has 8 bits."""


@dataclass(frozen=True)
class Rule:
    """One line of a table: where the tensor `source` goes, and in which axis order.

    Attributes:
      source: PyTorch name; may hold one `{i}`, the layer number.
      target: path in the parameter tree, with slashes; empty for tensors that are constants of the architecture (not
        stored).
      order: an einops pattern from the PyTorch axes to ours, for instance "o i -> i o".
      sizes: axis sizes that the pattern cannot infer.
      alias: a second name of the same tensor; files may hold one or both.
      constant: of a constant, the values that the architecture implies.
    """

    source: str
    target: str
    order: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    alias: str = ""
    constant: tuple[float, ...] = ()

    @property
    def stacked(self) -> bool:
        return "{i}" in self.source

    def name(self, layer: int) -> str:
        """The PyTorch name of a layer's tensor."""
        return self.source.replace("{i}", str(layer))

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        return einops.rearrange(tensor, self.order, **self.sizes) if self.order else tensor

    def to_pytorch(self, array: np.ndarray) -> np.ndarray:
        if not self.order:
            return array
        ours = self.order.split("->")
        return einops.rearrange(array, f"{ours[1]} -> {ours[0]}", **self.sizes)

    def shape_here(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a PyTorch tensor has here; the same shape where the pattern does not fit it."""
        try:
            return self.to_ours(
                np.broadcast_to(np.zeros((), np.uint8), shape)
            ).shape  # strides of 0: nothing is allocated
        except (einops.EinopsError, ValueError):
            return tuple(shape)

    def shape_there(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The PyTorch shape of one tensor, given the shape of the parameter that it goes into."""
        one = shape[1:] if self.stacked else shape
        return self.to_pytorch(np.broadcast_to(np.zeros((), np.uint8), one)).shape

    def check_constant(self, name: str, values: np.ndarray) -> None:
        """Refuse a constant with other values than the architecture implies.

        Raises:
          WeightsError: they differ by more than rounding.
        """
        if self.constant and not np.allclose(np.asarray(values, np.float32), self.constant, CONSTANT_TOLERANCE, 0):
            raise WeightsError(
                f"{name} holds other values than this architecture's; these weights are of another network"
            )


class WeightsError(ConfigError):
    """Weights that do not fit the architecture; the message lists every mismatch, one a line."""


@dataclass(frozen=True)
class Assignment:
    """Where the tensor of one name goes: the rule, and the layer of a stacked parameter (0 where nothing is
    stacked)."""

    rule: Rule
    layer: int


def assign(rules: list[Rule], shapes: Mapping[str, tuple[int, ...]], expected: Any) -> dict[str, Assignment]:
    """Find the place of every tensor, from names and shapes alone.

    Args:
      rules: the table of the model part.
      shapes: PyTorch name → shape, of everything that the files hold.
      expected: the tree of `jax.ShapeDtypeStruct` that the architecture's `init` would give.

    Returns:
      name → its place; tensors that repeat another under an alias have none.

    Raises:
      WeightsError: unknown, missing or misshapen tensors; all of them are listed, nothing is skipped.
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
    """For the source of every rule, the tensors that it names, by layer; and the tensors that no rule names, as
    problems."""
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
    """The place of a constant, which may be absent, and what is wrong with its shape."""
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
    """The places of the tensors that fill a parameter of a shape, and which of them are missing, one too many, or
    misshapen."""
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
    """The PyTorch name, rule and layer of every tensor that makes up the parameters `expected`, in the order of the
    table."""
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
