"""Running the project's notebook from top to bottom, as Run All does."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from src.utils import PROJECT_ROOT, atomic_path, output_file

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

NOTEBOOK = PROJECT_ROOT / "notebooks" / "ecg_tensor_pipeline.ipynb"

_SECONDS_TO_END = 10.0


def run_notebook(
    notebook: str | Path = NOTEBOOK,
    out: str | Path | None = None,
    *,
    config: str | Path | None = None,
    timeout_s: int = 3600,
) -> Path:
    """Execute a notebook in a new kernel and write a copy with its outputs.

    Parameters
    ----------
    notebook
        The notebook; it is not changed.
    out
        The executed copy; by default ``artifacts/notebook_executed.ipynb``.
    config
        JSON file of settings that override the notebook's own.
    timeout_s
        Limit for one cell in seconds.

    Raises
    ------
    ValueError
        If the notebook or the settings file is missing.
    RuntimeError
        If a cell fails; the message gives its error.
    """
    if config is not None and not Path(config).is_file():
        raise ValueError(
            f"{config}: no such file; expected settings in JSON, which override the notebook's own"
        )
    if not Path(notebook).is_file():
        raise ValueError(
            f"{notebook}: no such file; the notebook comes with the project's folder, not with the "
            "installed package: clone it and run make demo there"
        )
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    document = nbformat.read(str(notebook), as_version=4)
    out = Path(out) if out is not None else PROJECT_ROOT / "artifacts" / "notebook_executed.ipynb"
    output_file(out)
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    environment = dict(os.environ)
    if config is not None:
        environment["ECG_CONFIG"] = str(Path(config).resolve())
    client = NotebookClient(
        document,
        timeout=timeout_s,
        # Keeps only the last state of a progress bar.
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(Path(notebook).parent)}},
    )
    try:
        _execute(client, environment)
    except CellExecutionError as error:
        raise RuntimeError(
            f"{notebook}: a cell failed ({error.ename}: {error.evalue}); {out} shows where"
        ) from None
    finally:
        _drop_blank_streams(document)
        with atomic_path(out) as temporary:
            nbformat.write(document, str(temporary))
    return out


def _drop_blank_streams(document: NotebookNode) -> None:
    """Remove outputs of blanks alone: what a progress bar leaves when it goes."""
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.output_type != "stream" or output.text.strip()
            ]


def _execute(client: NotebookClient, environment: Mapping[str, str]) -> None:
    """Execute the cells of a notebook; an interrupt ends its kernel and is raised here.

    In the main thread the client would handle SIGINT and SIGTERM itself, and end with an error.
    """
    done: Future[None] = Future()

    def work() -> None:
        try:
            # Not client.execute, whose event loop would stay open in this thread
            asyncio.run(client.async_execute(env=dict(environment)))
            done.set_result(None)
        # Raised again in the main thread.
        except BaseException as error:  # noqa: BLE001
            done.set_exception(error)

    thread = threading.Thread(target=work, name="notebook", daemon=True)
    thread.start()
    try:
        done.result()
    except KeyboardInterrupt:
        kernel = getattr(client.km, "provisioner", None)
        process = getattr(kernel, "process", None)
        if process is not None:
            process.kill()
        # The client notices within seconds that its kernel is gone.
        thread.join(_SECONDS_TO_END)
        raise
