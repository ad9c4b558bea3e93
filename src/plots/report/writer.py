"""The report of a run, one HTML page to read, print and send: ``python -m src report``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.plots.report.data_sections import build_data_sections
from src.plots.report.examples import build_example_sections, collect_examples
from src.plots.report.model_sections import build_settings_section, build_training_section
from src.plots.report.page import render_page
from src.plots.report.run_files import load_run
from src.plots.report.score_sections import build_score_sections, build_summary
from src.plots.report.timeline_section import build_timeline_section
from src.plots.report.trust_sections import build_card_section, build_trust_sections
from src.processed.runs.heartbeat import Heartbeat
from src.utils import atomic_path

logger = logging.getLogger(__name__)


def write_report(
    run: str | Path,
    processed: str | Path | None = None,
    out: str | Path | None = None,
    *,
    n_examples: int = 6,
    with_saliency: bool = True,
    network: str | Callable[..., Any] | None = None,
) -> Path:
    """Write the report of a run, a single HTML file that needs no network.

    Parameters
    ----------
    run
        Folder of a training run, of evaluations, or of both.
    processed
        The processed folder; see `src.plots.report.run_files.load_run` for the default.
    out
        The page; by default ``report.html`` in the run's folder.
    n_examples
        Number of worst mistakes, and of typical records, shown with their ECG.
    with_saliency
        Shade these ECGs by a saliency map, if the checkpoint is there.
    network
        For a checkpoint of a network from elsewhere, which is explained: its factory, or
        ``package.module:factory``.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        If the run has nothing to report, a file is broken, or `processed` is of another run.
    """
    if n_examples < 0:
        raise ValueError(f"n_examples is {n_examples}: expected 0 or more records")
    with Heartbeat("report", f"reading {run}") as beat:
        files = load_run(run, processed)
        examples = collect_examples(
            files, n_examples, with_saliency=with_saliency, network=network, beat=beat
        )
        beat.start_step("drawing figures and tables")
        sections = [
            *build_data_sections(files),
            build_training_section(files),
            *build_score_sections(files),
            build_timeline_section(files),
            *build_trust_sections(files),
            *build_example_sections(examples),
            build_card_section(files),
            build_settings_section(files),
        ]
        page = render_page(f"Report of {files.name}", build_summary(files), sections)
    out = Path(out) if out is not None else files.run / "report.html"
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    logger.info("%s: %.1f MB", out, len(page) / 1e6)
    return out
