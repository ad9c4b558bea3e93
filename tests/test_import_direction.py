"""Who may import whom, and that importing does no work."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up. A module imports from layers below it and, where that makes no circle, from
# its own.
LAYERS = {
    "ground": "src utils",
    "plain tools": (
        "leads remote npz durable run_log fingerprints store duplicates splits pool ranking "
        "normalization text_tables figures ecg_svg rich"
    ),
    "settings": "config",
    "sources": (
        "formats formats.aecg formats.base formats.dicom formats.edf formats.hdf5 formats.mat "
        "formats.mat_check formats.muse formats.safe_xml formats.scp formats.wfdb "
        "formats.wfdb_header formats.wfdb_package formats.xml_ecg records fetching signals "
        "quality labels matching synthetic sample_data"
    ),
    "labels of known collections": "crosswalk label_builders label_sources label_sources.base "
    "label_sources.sources "
    "label_sources.challenge label_sources.hospital label_sources.ptbxl label_sources.table",
    "one record": "source_folders run_plan tensors",
    "many records": "staging preprocessing",
    "data, network, numbers": (
        "targets augment packed datasets distributed dataloaders convolution layers model "
        "checkpoints inputs metrics calibration intervals challenge_score subgroups mistakes "
        "judging"
    ),
    "evaluation": "eval saliency classifier onnx_export dataset_export",
    "training": "muon optimization tensorboard_log training sklearn_wrapper",
    "figures": "data_plots quality_plots ecg_paper ecg_gallery saliency_plots score_plots plots",
    "steps": (
        "checks file_predictions report_figures report report_page report_page.content "
        "report_page.data_sections report_page.examples report_page.inputs "
        "report_page.model_sections report_page.page report_page.score_sections "
        "report_page.vector smoke notebook leave_one_out cross_fit"
    ),
    "notebook": "session",
    "command line": "options arguments __main__",
}
LAYER_OF = {name: number for number, names in enumerate(LAYERS.values()) for name in names.split()}
HEAVY = ("torch", "pandas", "matplotlib", "sklearn", "wfdb", "h5py", "scipy.signal")


@cache
def modules() -> dict[str, Path]:
    """Name below src -> file; a package goes by its own name."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__") or "src"] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports of the project, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import; write from src..."
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            short = name.removeprefix("src.")
            if short in modules() and (name.startswith("src.") or name == "src"):
                yield short


def test_every_module_has_its_layer() -> None:
    assert sorted(LAYER_OF) == sorted(modules()), (
        "give a new module its place in LAYERS, take a removed one out"
    )


def test_imports_point_one_way() -> None:
    upwards = [
        f"src.{name} imports src.{other}"
        for name, path in modules().items()
        for other in sorted(set(imported(path)))
        if LAYER_OF.get(other, 0) > LAYER_OF.get(name, 0)
    ]
    assert not upwards, "a module imports from a layer above its own"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: set(imported(path)) - {name, "src"} for name, path in modules().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_utils_and_leads_lean_on_nothing() -> None:
    assert not list(imported(modules()["utils"])) and not list(imported(modules()["leads"]))


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
    assert run_python(LOOK.replace("NAMES", repr(names)), tmp_path) == {"changed": [], "files": []}


def test_light_modules_stay_light(tmp_path: Path) -> None:
    """The command line answers at once, and workers that read records pay for no library that they
    do not use.
    """
    names = [
        "__main__",
        "config",
        "records",
        "labels",
        "label_builders",
        "matching",
        "preprocessing",
        "checks",
        "notebook",
    ]
    code = f"""
import importlib, json, sys
loaded = {{}}
for name in {names}:
    importlib.import_module(f"src.{{name}}")
    loaded[name] = [heavy for heavy in {HEAVY} if heavy in sys.modules]
print(json.dumps(loaded))
"""
    assert run_python(code, tmp_path) == {name: [] for name in names}


def test_figures_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import json, sys, src.plots, src.metrics; print(json.dumps({'torch': 'torch' in "
        "sys.modules}))"
    )
    assert run_python(code, tmp_path) == {"torch": False}
