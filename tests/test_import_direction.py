"""Which package may import which, and that importing does no work."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up, by the first part of a module's name. A module imports from layers below its
# own; packages that share a line are independent of each other.
LAYERS = """
utils
locks
config
records
labels
processed
learning preprocessing
model dataloaders
eval
training classifier
plots sklearn_wrapper
commands
__main__
"""
LAYER_OF = {name: n for n, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}
HEAVY = ("torch", "pandas", "matplotlib", "sklearn", "wfdb", "h5py", "scipy.signal")
MAX_ENTRIES = 18  # in src


@cache
def modules() -> dict[str, Path]:
    """Name below src -> file; a package goes by its own name."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__") or "src"] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of src that a file imports, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import; write from src..."
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            short = name.removeprefix("src.")
            if short in modules() and name.startswith("src."):
                yield short


def test_the_house_has_few_rooms_and_each_has_its_layer() -> None:
    entries = {path.stem for path in (ROOT / "src").iterdir() if path.name != "__pycache__"}
    assert len(entries) <= MAX_ENTRIES
    assert entries - {"__init__"} == set(LAYER_OF), "give a new package its place in LAYERS"


def test_imports_point_one_way() -> None:
    upwards = []
    for name, path in modules().items():
        package = name.partition(".")[0]
        for other in sorted({other.partition(".")[0] for other in imported(path)} - {package}):
            if name != "src" and LAYER_OF[other] >= LAYER_OF[package]:
                upwards.append(f"src.{name} imports src.{other}")
    assert not upwards, "a module imports from its own layer or one above"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {}
    for name, path in modules().items():
        # A package imports its own modules when their names are used
        graph[name] = {
            other for other in imported(path) if other != name and not other.startswith(f"{name}.")
        }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def run_python(code: str, folder: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True
    )
    assert not done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


LOOK = """
import importlib, json, logging, os, random, sys, warnings
import matplotlib, numpy, sklearn, torch

def look():
    return [
        dict(os.environ), random.getstate(), numpy.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(), torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
        dict(matplotlib.rcParams), matplotlib.get_backend(), numpy.geterr(),
        list(logging.root.handlers), logging.root.level,
    ]

before = look()
for name in NAMES:
    importlib.import_module(name)
names = "environment random numpy torch threads deterministic benchmark rcParams backend errors "
names = (names + "handlers level").split()
changed = [name for name, a, b in zip(names, before, look()) if a != b]
print(json.dumps({"changed": changed, "files": os.listdir(".")}))
"""


def test_importing_does_no_work(tmp_path: Path) -> None:
    names = [f"src.{name}".removesuffix(".src") for name in modules()]
    expected = {"changed": [], "files": []}
    assert run_python(LOOK.replace("NAMES", repr(names)), tmp_path) == expected


def loaded_after(name: str, folder: Path) -> list[str]:
    """Return the modules that are loaded after one import in a new process."""
    code = f"import json, sys, {name}; print(json.dumps({{'loaded': sorted(sys.modules)}}))"
    loaded = run_python(code, folder)["loaded"]
    assert isinstance(loaded, list)
    return loaded


@pytest.mark.parametrize(
    "name",
    [
        "__main__",
        "utils",
        "config",
        "records",
        "labels.mapping",
        "labels.builders",
        "labels.matching",
        "preprocessing",
        "commands.dry_run",
        "commands.demo",
    ],
)
def test_light_modules_stay_light(tmp_path: Path, name: str) -> None:
    """The command line answers at once, and workers pay for no library that they do not use."""
    assert not set(HEAVY) & set(loaded_after(f"src.{name}", tmp_path))


def test_figures_need_no_torch(tmp_path: Path) -> None:
    for name in ("src.plots.confusion_matrix", "src.learning.metrics"):
        assert "torch" not in loaded_after(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "most"),
    [("dataloaders", 20), ("model", 15), ("eval", 38), ("training", 48)],
)
def test_a_spine_file_loads_few_modules(tmp_path: Path, name: str, most: int) -> None:
    loaded = [module for module in loaded_after(f"src.{name}", tmp_path) if module[:4] == "src."]
    assert len(loaded) <= most
    above = ("src.records.formats", "src.records.reading", "src.plots", "src.commands")
    assert not [module for module in loaded if module.startswith(above)]


def test_every_package_is_installed() -> None:
    """Packages are listed by hand, because the trained networks lie outside src."""
    with open(ROOT / "pyproject.toml", "rb") as stream:
        listed = tomllib.load(stream)["tool"]["setuptools"]["packages"]
    found = {path.parent for path in (ROOT / "src").rglob("__init__.py")}
    names = {path.relative_to(ROOT).as_posix().replace("/", ".") for path in found}
    assert set(listed) == names | {"src.pretrained"}
