"""Run every example of README, guide and pages, block by block, in a copy of the project.

Blocks run as they are written, except for the changes listed here: they make the examples small and
skip commands that set up a machine. A block of Python that begins with ``# name.py`` is also
written to that file.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from example_project import build_project
from settings import SMALL_NOTEBOOK
from test_docs import DOCUMENTS, blocks

from src.utils import save_json

pytestmark = pytest.mark.slow

CHANGES = (
    # The command is that of this folder, whatever is installed
    (r"^ecg ", "python -m src "),
    (r"(-m src (?:train|leave-one-out|cross-validate)\b.*)", r"\1 --epochs 1 --device cpu"),
    (r"(-m src (?:check|preprocess)\b.*)", r"\1 --workers 1"),
    (r"--intervals 1000", "--intervals 20"),
    (r"/data/mine/", "data/mine/"),
    (r"/path/to/ecg-tensor-pipeline", "."),
    (r"/path/to/artifacts", "artifacts"),
)
# Pattern of a line -> why it is not run
NOT_RUN = {
    r"^git clone|^cd ": "the folder is there",
    r"^make ": "each target is a command that other tests run",
    r"^(python -m )?pip |^python3 -m venv|^source |^\.venv/bin/python": (
        "creates, changes or needs another environment"
    ),
    r"^jupyter ": "test_jupyterlab.py starts it",
    r"data/(code15|ecg-arrhythmia|chapman|mimic-iv-ecg|echonext|ludb|mitdb|mitdb_ds1|afdb)\b": (
        "needs the collection; tests make small ones of each layout"
    ),
    r"artifacts/mitdb_(beats|folds)": "needs the run before it",
    r"s3://": "needs the network; test_remote.py has a server of its own",
}
# Part of a command -> module that it needs; it is skipped without
NEEDED = {"export-dataset": "pyarrow", " export ": "onnx"}
FIRST = ("README.md", "docs/ptbxl.md")
WITH_EXAMPLES = [name for name in DOCUMENTS if blocks(name, "bash", "sh", "shell", "python", "py")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the project after `make demo`, which most examples need."""
    folder = build_project(tmp_path_factory.mktemp("examples") / "project")
    save_json(SMALL_NOTEBOOK, folder / "small.json")
    run(folder, [sys.executable, "-m", "src", "demo", "--config", "small.json"], "demo")
    return folder


def run(folder: Path, command: list[str], shown: str) -> None:
    """Run a command in the folder with the environment activated."""
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, f"{shown}\n\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def changed(block: str) -> str:
    """Return a block with continued lines joined and the `CHANGES` applied."""
    text = block.replace("\\\n", " ")
    for pattern, replacement in CHANGES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def lines_to_run(block: str) -> list[str]:
    """Return the lines of a shell block that are run."""
    lines = [
        line
        for line in changed(block).splitlines()
        if line.strip() and not any(re.search(part, line) for part in NOT_RUN)
    ]
    return [
        line
        for line in lines
        if all(find_spec(module) for part, module in NEEDED.items() if part in line)
    ]


def missing_modules(block: str, folder: Path) -> list[str]:
    """Return the packages that a Python block imports and that are not installed.

    Modules in the folder are there.
    """
    nodes = list(ast.walk(ast.parse(block)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return sorted(
        name
        for name in {name.split(".")[0] for name in names}
        if not (folder / f"{name}.py").exists() and name != "src" and find_spec(name) is None
    )


def write_module(block: str, folder: Path) -> None:
    """Write a Python block whose first line names its file, for the blocks after it."""
    if named := re.match(r"# (\w+\.py)\n", block):
        (folder / named[1]).write_text(block, encoding="utf-8")


def run_examples(folder: Path, name: str) -> None:
    """Run the blocks of a document in order."""
    shell = blocks(name, "bash", "sh", "shell")
    for block in blocks(name, "bash", "sh", "shell", "python", "py"):
        if block in shell:
            run(folder, ["bash", "-e", "-c", "\n".join(lines_to_run(block))], f"{name}:\n{block}")
        elif not missing_modules(block, folder):
            write_module(block, folder)
            run(folder, [sys.executable, "-c", changed(block)], f"{name}:\n{block}")


@pytest.fixture(scope="module")
def after_readme(project: Path) -> Path:
    """Return the project after the README's examples; other documents use their runs."""
    for name in FIRST:
        run_examples(project, name)
    return project


def test_examples_of_the_readme_run(after_readme: Path) -> None:
    runs = after_readme / "artifacts" / "runs"
    assert (runs / "mine" / "report.html").is_file() and (
        runs / "ptbxl100" / "metrics_val.json"
    ).is_file()


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if name not in FIRST])
def test_examples_run(after_readme: Path, name: str) -> None:
    run_examples(after_readme, name)
