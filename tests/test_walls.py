"""The rooms of the package and who may import whom: only what stands on a lower floor, and no cycles in a floor."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pavdm_jax"

FLOORS = (
    {"errors", "interrupts"},
    {"config_checks"},
    {"config", "resolutions", "storage"},
    {"wan_config"},
    {"families"},
    {"geometry", "outputs"},
    {"models", "diffusion", "distributed"},
    {"checkpoints", "video", "flops", "cli"},
    {"text", "conversion"},
    {"generation", "data"},
    {"training", "evaluation"},
    {"ahead_of_time"},
    {"__init__", "__main__", "make_video", "redo", "train", "precompute", "convert_weights", "evaluate", "benchmark"},
)
"""From the ground up. A room is a folder or a file right in the package."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    """Dotted, without the package's own: "models.stdit3"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported_modules(path: Path) -> set[str]:
    """All modules of the package that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} imports by a relative name"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pavdm_jax":
            module = node.module.removeprefix("pavdm_jax").lstrip(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                found.add(inner if inner in MODULES else module or "__init__")
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("pavdm_jax").lstrip(".") or "__init__"
                for alias in node.names
                if alias.name.split(".")[0] == "pavdm_jax"
            }
    return found


IMPORTS = {name: imported_modules(path) for name, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_room_has_its_floor():
    assert {room(module) for module in MODULES} == set(FLOOR_OF)


@pytest.mark.parametrize("name", sorted(FLOOR_OF))
def test_a_room_imports_only_what_stands_below_it(name):
    upwards = [
        f"{module} imports {other}"
        for module in MODULES
        if room(module) == name
        for other in sorted(IMPORTS[module])
        if room(other) != name and FLOOR_OF[room(other)] >= FLOOR_OF[name]
    ]
    entry_point_of_entry_points = [line for line in upwards if line.startswith("__main__ imports ")]
    assert [line for line in upwards if line not in entry_point_of_entry_points] == []


def test_no_modules_import_each_other_in_a_circle():
    list(graphlib.TopologicalSorter(IMPORTS).static_order())  # raises CycleError, which names them


@pytest.mark.parametrize(
    "room_name, below", [("diffusion", "models"), ("models", "diffusion"), ("models", "distributed")]
)
def test_networks_and_noise_schedules_know_nothing_of_each_other_and_of_meshes(room_name, below):
    assert not [m for m in MODULES if room(m) == room_name and below in {room(other) for other in IMPORTS[m]}]
