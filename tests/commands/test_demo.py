"""The notebook as a command: how it ends when it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

# Runs the command line with another notebook in the place of the project's. A shell lets what it
# starts in the background ignore Ctrl-C.
STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from functools import partial
from src.__main__ import main
from src.commands import demo
demo.run_notebook = partial(demo.run_notebook, sys.argv[1])
sys.exit(main(["demo", "--out", sys.argv[2]]))
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_demo_ends_with_its_kernel_and_a_line(
    tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    cell = f"open({str(tmp_path / 'runs')!r}, 'w').close()\nimport time\ntime.sleep(60)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, str(tmp_path / "n.ipynb"))
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path / "n.ipynb"), str(tmp_path / "out.ipynb")],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(sent)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status
    assert "run the same command again" in error.splitlines()[-1]
    assert "Traceback" not in error
