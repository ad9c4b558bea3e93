"""The notebook in a real JupyterLab: opened in Chromium, run by the menu's Run All Cells, and
looked at as a reader sees it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import CHROMIUM, Page, start_chromium
from settings import SMALL_NOTEBOOK

from src.commands.demo import NOTEBOOK
from src.utils import PROJECT_ROOT, save_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium here to open JupyterLab in (Debian: apt-get install chromium)",
    ),
]

QUIET = {  # no questions to the reader, and every cell in the page, wherever it is scrolled to
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
NOTEBOOK_WIDGET = "jupyterapp.shell.currentWidget"
CODE_CELLS = f"{NOTEBOOK_WIDGET}.content.widgets.filter(cell => cell.model.type === 'code')"
CELLS = f"""{CODE_CELLS}.map(cell => ({{
    count: cell.model.executionCount,
    errors: cell.model.outputs.toJSON()
        .filter(output => output.output_type === 'error')
        .map(output => output.evalue),
    text: cell.outputArea.node.innerText,
    tables: cell.outputArea.node.querySelectorAll('table').length,
    pictures: [...cell.outputArea.node.querySelectorAll('img')].map(image => image.naturalWidth),
}}))"""


@contextmanager
def start_lab(folder: Path) -> Iterator[str]:
    """Serve a copy of the notebook beside the project's modules and yield the address of
    JupyterLab, with its token.
    """
    project, settings = folder / "checkout", folder / "settings"
    (project / "notebooks").mkdir(parents=True)
    (project / "src").symlink_to(PROJECT_ROOT / "src")
    shutil.copy(NOTEBOOK, project / "notebooks")
    save_json({"root": str(folder / "project"), **SMALL_NOTEBOOK}, folder / "config.json")
    for name, values in QUIET.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    token = secrets.token_hex(16)
    options = [
        f"--ServerApp.root_dir={project}",
        f"--IdentityProvider.token={token}",
        "--ServerApp.port=0",
        "--no-browser",
        "--allow-root",
    ]
    options += [
        f"--LabApp.user_settings_dir={settings}",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        "--expose-app-in-browser",
    ]
    own = {
        name: str(folder / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    environment = {**os.environ, **own, "ECG_CONFIG": str(folder / "config.json")}
    with (folder / "lab.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=project,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        server = _wait_for_server(folder / "jupyter_runtime_dir", process)
        yield f"{server}lab/tree/notebooks/{NOTEBOOK.name}?token={token}"
    finally:
        process.terminate()
        process.wait(30)


def _wait_for_server(runtime: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(1200):
        assert process.poll() is None, "JupyterLab ended before it served; lab.log says why"
        for path in runtime.glob("jpserver-*.json"):
            return str(json.loads(path.read_text(encoding="utf-8"))["url"])
        time.sleep(0.1)
    raise TimeoutError("JupyterLab did not serve within two minutes")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """JupyterLab with the notebook after Run All Cells."""
    folder = tmp_path_factory.mktemp("lab")
    with start_lab(folder) as address, start_chromium(folder / "profile") as page:
        page.send(
            "Emulation.setFocusEmulationEnabled", enabled=True
        )  # menus act on the widget that has the focus
        page.open(address, width=1280, height=900)
        page.wait_for(
            "window.jupyterapp && [...jupyterapp.shell.widgets('main')].some(widget => "
            "widget.sessionContext?.session?.kernel?.status === 'idle')",
            120,
        )
        page.run(
            "jupyterapp.shell.activateById([...jupyterapp.shell.widgets('main')].find(widget "
            "=> widget.sessionContext).id)"
        )
        page.run("jupyterapp.commands.execute('runmenu:run-all').then(() => true)", timeout_s=600)
        yield page


def test_run_all_finishes_every_cell_without_an_error(lab: Page) -> None:
    cells = lab.run(CELLS)
    assert [cell["count"] for cell in cells] == list(range(1, 12))
    assert not [error for cell in cells for error in cell["errors"]]
    assert "smoke test passed" in cells[3]["text"] and "parameters" in cells[6]["text"]


def test_tables_and_figures_are_shown(lab: Page) -> None:
    cells = lab.run(CELLS)
    assert [number for number, cell in enumerate(cells) if cell["tables"]] == [
        *(1, 2, 4, 5, 6, 7, 9, 10)
    ]
    assert {
        number: len(cell["pictures"]) for number, cell in enumerate(cells) if cell["pictures"]
    } == {2: 2, 5: 1, 8: 1, 9: 3, 10: 1}
    assert all(width > 400 for cell in cells for width in cell["pictures"])


def test_nothing_shown_is_wider_than_the_notebook(lab: Page) -> None:
    wide = """[...document.querySelectorAll('.jp-OutputArea-output')]
        .filter(output => output.scrollWidth > output.clientWidth + 1)
        .map(output => output.innerText.slice(0, 80))"""
    assert lab.run(wide) == []


def test_the_whole_notebook_is_kept_as_a_picture(lab: Page) -> None:
    """As build/jupyterlab.png, for a person to look at."""
    lab.run(
        f"{NOTEBOOK_WIDGET}.content.node.querySelector('.jp-WindowedPanel-outer').scrollTop = 0"
    )
    height = lab.run("document.querySelector('.jp-WindowedPanel-inner').offsetHeight") + 200
    lab.send(
        "Emulation.setDeviceMetricsOverride",
        width=1280,
        height=height,
        deviceScaleFactor=1,
        mobile=False,
    )
    lab.run("new Promise(done => setTimeout(done, 1000))")
    (PROJECT_ROOT / "build").mkdir(exist_ok=True)
    picture = lab.picture(PROJECT_ROOT / "build" / "jupyterlab.png", whole=False)
    assert read_size(picture) == (1280, height)


def read_size(picture: Path) -> tuple[int, int]:
    """Return width and height of a PNG, in pixels."""
    return struct.unpack(">II", picture.read_bytes()[16:24])
