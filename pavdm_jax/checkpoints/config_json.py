"""Configs as JSON text, and back."""

import dataclasses
import json
import numbers
import types
import typing
from typing import Any, TypeVar, cast

from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig

T = TypeVar("T")

# --- JSON -------------------------------------------------------------------------------------------------------------


def to_json(config: Any) -> str:
    """A config, or a list of them, as indented JSON text."""
    return json.dumps(config, indent=2, default=plain)


def plain(value: Any) -> Any:
    """A config, or a number of another library such as NumPy, as JSON can hold it."""
    if isinstance(value, numbers.Real):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return dataclasses.asdict(value)


def from_json(kind: type[T], text: str) -> T:
    """Read a config of class `kind`, or of one of a union of classes, back from `to_json`'s text.

    Raises:
      ConfigError: the text is not JSON, names a field that `kind` does not have, lacks one without a default, or has a
        value of another type; the message names the field.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"this is not a JSON config: {error}") from None
    return _build(kind, values, getattr(kind, "__name__", "config"))


def read_model_config(text: str) -> AnyModelConfig:
    """The config of a model of any family from `to_json`'s text; errors are those of `from_json`."""
    return from_json(cast(type, AnyModelConfig), text)


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value` as parsed from JSON, made into `kind`; `where` names the field in errors."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected fields of {kind.__name__}, got {value!r}")
        hints, fields = typing.get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
        unknown = sorted(set(value) - set(fields))
        if unknown:
            raise ConfigError(f"{where}: unknown field {', '.join(unknown)}; known fields are {', '.join(fields)}")
        missing = [name for name, field in fields.items() if name not in value and _is_required(field)]
        if missing:
            raise ConfigError(f"{where}: the field {', '.join(missing)} is missing")
        return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _build(_most_alike(arguments, value), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise ConfigError(f"{where}: expected {len(kinds)} values, got {len(value)}")
        return tuple(_build(k, v, f"{where}[{n}]") for n, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _most_alike(kinds: tuple, value: Any) -> Any:
    """Of a union, the class of configs that has most of the fields of `value`; else the first kind that is not None."""
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    named = set(value) if isinstance(value, dict) else set()
    alike = [len(named & set(getattr(kind, "__dataclass_fields__", ()))) for kind in kinds]
    return kinds[alike.index(max(alike))]


def check_kinds(value: Any, kind: Any, where: str) -> None:
    """Check that a config's fields, and those of the configs within it, have values of the kinds that they declare.

    Args:
      value: of a field, or a whole config.
      kind: what is declared: a class, a union, or a tuple.
      where: names the field in errors, or is empty for a whole config.

    Raises:
      ConfigError: one has not; the message names it.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.ClassVar:
        return
    kinds = arguments if origin in (typing.Union, types.UnionType) else (kind,)
    fitting = [one for one in kinds if _is_of(value, one)]
    if not fitting:
        names = " or ".join("None" if one is type(None) else getattr(one, "__name__", str(one)) for one in kinds)
        raise ConfigError(f"{where} must be {names}, not {value!r}")
    if dataclasses.is_dataclass(value):
        for name, hint in typing.get_type_hints(type(value)).items():
            check_kinds(getattr(value, name), hint, f"{where}.{name}" if where else name)
    elif isinstance(value, tuple | list) and (of_items := typing.get_args(fitting[0])):
        if typing.get_origin(fitting[0]) is not tuple or of_items[-1] is Ellipsis:
            of_items = of_items[:1] * len(value)
        if len(of_items) != len(value):
            raise ConfigError(f"{where} must have {len(of_items)} values, not {value!r}")
        for number, (item, of_item) in enumerate(zip(value, of_items, strict=True)):
            check_kinds(item, of_item, f"{where}.{number}")


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a class or a generic one; whole numbers are floats, too, and truth values are neither."""
    outer = typing.get_origin(kind) or kind
    if isinstance(value, bool):
        return outer is bool
    return isinstance(value, {int: numbers.Integral, float: numbers.Real}.get(outer, outer))
