"""The documentation as a site, with the docstrings of every module: ``make docs`` writes it to
``build/site``.

The source folder is the project itself, so that README, guide and pages stay where a code host
shows them and their links are checked as they are.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from nbconvert import MarkdownExporter
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from src import __version__  # noqa: E402

project = "ECG tensor pipeline"
author = "The ECG tensor pipeline developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "experiments/*.md",
    "artifacts/pretrained/*.md",
    "build/api/*.rst",
    "build/notebook_page/*.md",
]
exclude_patterns = ["build/api/modules.rst"]

myst_heading_anchors = 3

apidoc_modules = [
    {
        "path": str(ROOT / "src"),
        "destination": "build/api",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {
            "members",
            "show-inheritance",
            "ignore-module-all",
        },  # a name is documented where it is defined
    }
]
autodoc_default_options = {
    "exclude-members": "set, set_score_request"
}  # made by matplotlib and scikit-learn, in their markup
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False

CONTENTS = {
    "Start": (
        "SETUP_SUMMARY",
        "docs/tutorial_own_data",
        "docs/tutorial_fine_tuning",
        "The notebook, as it ran <build/notebook_page/notebook>",
    ),
    "Reference": (
        "IMPLEMENTATION_GUIDE",
        "docs/formats",
        "docs/quality",
        "docs/duplicates",
        "docs/crosswalk",
        "docs/report",
        "docs/explain",
        "docs/export",
    ),
    "Results": (
        "BENCHMARKS",
        "docs/scaling",
        "RELIABILITY",
        "experiments/README",
        "artifacts/pretrained/superclass",
        "artifacts/pretrained/statements",
    ),
    "Code": ("Modules <build/api/src>", "CONTRIBUTING", "CHANGELOG"),
}
TOCTREE = """

```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page the contents of the site, which a code host would show as text."""
    if name == root_doc:
        source[0] += "".join(
            TOCTREE.format(caption=caption, pages="\n".join(pages))
            for caption, pages in CONTENTS.items()
        )


def write_notebook_page(app: Sphinx) -> None:
    """Make a page of the notebook with its outputs, since a link alone would download it."""
    folder = ROOT / "build" / "notebook_page"
    folder.mkdir(parents=True, exist_ok=True)
    text, resources = MarkdownExporter().from_filename(str(ROOT / "docs" / "notebook.ipynb"))
    (folder / "notebook.md").write_text(text, encoding="utf-8")
    for name, picture in resources["outputs"].items():
        (folder / name).write_bytes(picture)


def copy_first_page(app: Sphinx, error: Exception | None) -> None:
    """Let the site open at ``index.html``."""
    if error is None:
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Register what the site needs beyond the extensions."""
    app.connect("builder-inited", write_notebook_page)
    app.connect("source-read", add_contents)
    app.connect("build-finished", copy_first_page)
