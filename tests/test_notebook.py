"""The notebook as it is stored, run from top to bottom in a kernel of its own, and run in other
orders.
"""

from __future__ import annotations

import ast
import os
import random
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from settings import SMALL_NOTEBOOK

from src.commands.demo import NOTEBOOK, run_notebook
from src.utils import PROJECT_ROOT, load_json, save_json

SECTIONS = (
    "setup",
    "check",
    "smoke",
    "preprocessing",
    "loaders and model",
    "train",
    "evaluate",
    "summary",
)
SETUP, CONFIGURATION, SUMMARY = 0, 1, 10
WITH_PICTURES = [2, 5, 8, 9, 10]


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(str(NOTEBOOK), as_version=4)


@pytest.fixture(scope="module")
def cells(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def write_config(root: Path) -> Path:
    """Write settings that keep everything below `root` and small."""
    path = root / "config.json"
    save_json({"root": str(root / "project"), **SMALL_NOTEBOOK}, path)
    return path


# As it is stored ----------------------------------------------------------------------------------


def test_eight_sections_in_order(notebook: nbformat.NotebookNode) -> None:
    lines = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
    ]
    headings = [line for line in lines if line.startswith("## ")]
    assert [heading.split(".")[0] for heading in headings] == [
        f"## {number}" for number in range(1, 9)
    ]
    assert all(word in heading.lower() for word, heading in zip(SECTIONS, headings, strict=True)), (
        headings
    )


def test_eleven_short_cells_without_functions(cells: list[str]) -> None:
    assert len(cells) == 11
    for source in cells:
        assert len(source.splitlines()) <= 25
        nodes = list(ast.walk(ast.parse(source)))
        assert not any(
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
            for node in nodes
        )


def test_stored_without_outputs(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "widgets" not in notebook.metadata and "ECG_CONFIG" in notebook.cells[0].source


def test_the_first_cell_finds_the_project(
    cells: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the project, from its notebooks, and from a folder into which it was cloned, as in
    Colab.
    """
    finding = cells[SETUP].split("sys.path")[0]
    (tmp_path / "clone").symlink_to(PROJECT_ROOT)
    for place, root in (
        (PROJECT_ROOT, PROJECT_ROOT),
        (NOTEBOOK.parent, PROJECT_ROOT),
        (tmp_path, tmp_path / "clone"),
    ):
        monkeypatch.chdir(place)
        found: dict[str, Path] = {}
        exec(finding, found)
        assert found["ROOT"] == root
    (tmp_path / "elsewhere" / "notes").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" / "notes")
    with pytest.raises(
        AssertionError,
        match=r"no project in, above or right below .*: start Jupyter in the project folder, or "
        r"clone",
    ):
        exec(finding, {})


# The copy to read ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> nbformat.NotebookNode:
    return nbformat.read(str(PROJECT_ROOT / "docs" / "notebook.ipynb"), as_version=4)


def test_the_published_copy_is_of_this_notebook(
    published: nbformat.NotebookNode, notebook: nbformat.NotebookNode
) -> None:
    here, there = (
        [(cell.cell_type, cell.source) for cell in document.cells]
        for document in (notebook, published)
    )
    assert here == there, "run make notebook"


def test_the_published_copy_ran_whole_and_is_small(published: nbformat.NotebookNode) -> None:
    nbformat.validate(published)
    code = [cell for cell in published.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, 12)) and all(
        cell.outputs for cell in code
    )
    assert not [
        output
        for cell in code
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert [
        i
        for i, cell in enumerate(code)
        if any("image/png" in o.get("data", {}) for o in cell.outputs)
    ] == WITH_PICTURES
    text = (PROJECT_ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8")
    assert len(text) < 1_500_000 and not re.search(r"/(?:root|work|home|tmp)/", text)


# From top to bottom -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    return run_notebook(out=root / "executed.ipynb", config=write_config(root))


def test_a_whole_run_leaves_its_outputs(executed: Path) -> None:
    project = executed.parent / "project"
    figures = ("training_history", "test_f1_scores", "test_confusion_matrix", "test_ecg_example")
    for name in [f"figures/{name}.png" for name in figures]:
        assert (project / name).read_bytes().startswith(b"\x89PNG"), name
    for name in ("training_log.json", "metrics_test.json", "summary.json", "processed/splits.json"):
        assert load_json(project / "artifacts" / name), name
    for name in (
        "models/best.pth",
        "models/latest.pth",
        "predictions_test.npz",
        "processed/manifest.csv",
    ):
        assert (project / "artifacts" / name).stat().st_size, name
    assert len(list((project / "artifacts" / "processed" / "records").glob("*.npz"))) == 36
    assert not list(project.rglob(".tmp-*"))


def test_a_whole_run_shows_what_it_did(executed: Path) -> None:
    document = nbformat.read(str(executed), as_version=4)
    code = [cell for cell in document.cells if cell.cell_type == "code"]
    texts = [
        "".join(
            output.get("text", "") or output["data"].get("text/plain", "")
            for output in cell.outputs
        )
        for cell in code
    ]
    assert "smoke test passed" in texts[3] and "36 ok" in texts[4] and "residual block" in texts[6]
    assert [
        i
        for i, cell in enumerate(code)
        if any("<table>" in o.get("data", {}).get("text/html", "") for o in cell.outputs)
    ] == [1, 2, 4, 5, 6, 7, 9, 10]
    assert [
        i
        for i, cell in enumerate(code)
        if any("image/png" in o.get("data", {}) for o in cell.outputs)
    ] == WITH_PICTURES
    assert "records: 36 ok" in texts[SUMMARY] and "epochs: 2" in texts[SUMMARY]
    assert "figures/training_history.png" in texts[SUMMARY]
    assert not any("Warning" in text for text in texts), texts
    # Jupyter shows it on red
    assert not [o for cell in code for o in cell.outputs if o.get("name") == "stderr"]


def test_a_cell_that_fails_is_named_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    save_json({"train": {"epochs": -1}}, config)
    message = r"a cell failed \(ValueError: train.epochs is -1: expected 1 or more, or 0 to"
    with pytest.raises(RuntimeError, match=message) as caught:
        run_notebook(out=tmp_path / "executed.ipynb", config=config)
    assert "\n" not in str(caught.value) and (tmp_path / "executed.ipynb").exists()


# In other orders ----------------------------------------------------------------------------------


REST = list(range(CONFIGURATION + 1, SUMMARY + 1))
BACKWARDS = [[*REST[::-1], CONFIGURATION, SETUP], [SETUP, CONFIGURATION, *REST[::-1]]]
LATE_FIRST = [[SETUP, CONFIGURATION, cell, *REST] for cell in (10, 9, 8)]
THROWN = [[SETUP, CONFIGURATION, *random.Random(seed).choices(REST, k=12)] for seed in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "orders",
    [
        pytest.param(BACKWARDS, id="backwards"),
        pytest.param([*LATE_FIRST, *THROWN], id="others"),
    ],
)
def test_cells_run_in_any_order(
    orders: list[list[int]], cells: list[str], notebook: nbformat.NotebookNode, tmp_path: Path
) -> None:
    """One kernel runs all orders; before each it forgets every name, and the files are removed."""
    config = write_config(tmp_path)
    forget = (
        f"%reset -f\nimport shutil\nshutil.rmtree({str(tmp_path / 'project')!r}, "
        "ignore_errors=True)"
    )
    document = nbformat.v4.new_notebook(metadata=notebook.metadata)
    places = []
    for order in orders:
        document.cells.append(nbformat.v4.new_code_cell(forget))
        for cell in order:
            places.append((order, cell, len(document.cells)))
            document.cells.append(nbformat.v4.new_code_cell(cells[cell]))
    client = NotebookClient(
        document, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute(env={**os.environ, "ECG_CONFIG": str(config)})
    for order, cell, place in places:
        text = "".join(
            o.get("text", "") for o in document.cells[place].outputs if o.get("name") == "stdout"
        )
        refused = "Run the" in text
        assert refused == (order[0] != SETUP and cell != SETUP), (order, cell, text)
        assert not refused or len(text.splitlines()) == 1
