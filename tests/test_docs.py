"""The documents match the code: settings and options are explained, links and commands work."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_import_direction import LAYER_OF

from src import __version__, plots
from src.__main__ import build_parser, main

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "docs"))

from pictures import read_rooms  # noqa: E402
from reference import build_pages, command_parsers, fill, settings_classes  # noqa: E402

FOLDERS = (".", "docs", "experiments", "artifacts/pretrained")
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.md"))
]
SHELL = re.compile(
    r"(\$ )?(python3?|ecg|make|pip|git|source|export|cd|docker|torchrun|printf|jupyter|conda|uv)\b"
)

MODULES_OF_TEN = (
    "records",
    "plots",
    "preprocessing",
    "dataloaders",
    "training",
    "eval",
    "classifier",
)
COMMAND_WIDTH = 90
"""Characters of a line of code that the site shows without a bar to scroll."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, *languages: str) -> list[str]:
    """Return the fenced blocks in one of the languages.

    A block without a language is a shell block if it begins with a known command.
    """
    fenced = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text_of(name), re.MULTILINE | re.DOTALL)
    return [
        text
        for language, text in fenced
        if (language or ("bash" if SHELL.match(text) else "text")) in languages
    ]


# Settings, options and rooms ---------------------------------------------------------------------


def test_reference_pages_are_up_to_date() -> None:
    for name, text in build_pages().items():
        assert text_of(name) == text, (
            f"{name}: run make docs, or {sys.executable} docs/reference.py"
        )


@pytest.mark.parametrize("kind", settings_classes())
def test_every_setting_is_explained(kind: type) -> None:
    page = text_of("docs/settings.md")
    names = [field.name for field in dataclasses.fields(kind)]
    assert f"## {kind.__name__}\n" in page
    assert not [name for name in names if f"| `{name}` |" not in page]


@pytest.mark.parametrize("name", command_parsers())
def test_every_option_is_explained(name: str) -> None:
    pages = text_of("docs/commands.md") + text_of("docs/settings.md")
    flags = [
        action.option_strings[0]
        for action in command_parsers()[name]._actions
        if action.option_strings and action.dest != "help"
    ]
    assert f"## {name}\n" in pages
    assert not [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", pages)]


def test_a_page_without_marks_for_a_table_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin A -->\nold\n<!-- end A -->\nafter\n", encoding="utf-8")
    assert fill(page, {"A": "new"}) == (
        "before\n<!-- begin A -->\n\nnew\n\n<!-- end A -->\nafter\n"
    )
    with pytest.raises(
        ValueError, match=r"page\.md: expected marks for each table once, look at B"
    ):
        fill(page, {"A": "new", "B": "missing"})


def test_every_entry_of_src_has_its_row() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", text_of("IMPLEMENTATION_GUIDE.md"), re.MULTILINE)
    entries = [path for path in (ROOT / "src").iterdir() if path.name != "__pycache__"]
    names = {f"{path.name}/" if path.is_dir() else path.name for path in entries}
    assert names <= set(rows)


def test_every_page_is_linked_from_the_readme() -> None:
    links = set(re.findall(r"\]\((docs/[\w.]+)\)", text_of("README.md")))
    assert {name for name in DOCUMENTS if name.startswith("docs/")} <= links


def test_the_guide_has_the_levels_that_imports_are_held_to() -> None:
    levels = {name.removesuffix(".py").rstrip("/"): level for name, level, _ in read_rooms()}
    assert levels == {name: level + 1 for name, level in LAYER_OF.items()}


@pytest.mark.parametrize(
    ("name", "most"),
    [("README.md", 9_000), ("IMPLEMENTATION_GUIDE.md", 25_000), ("SETUP_SUMMARY.md", 8_000)],
)
def test_a_document_is_short_enough_to_be_read(name: str, most: int) -> None:
    assert len(text_of(name)) <= most


def test_tests_that_keep_promises_exist() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", text_of("RELIABILITY.md")))
    assert named
    assert not [name for name in named if f"def {name}(" not in source]


def texts_of_the_code() -> Iterator[str]:
    """Yield the strings of src, with a NUL for each value that is filled in, and the notebook."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
                ]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    yield text_of("notebooks/ecg_tensor_pipeline.ipynb")


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    page, _ = text_of("docs/troubleshooting.md").split("## Messages of other programs")
    cells = re.findall(r"^\| (`.+?) \| ", page, re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    texts = list(texts_of_the_code())
    unknown = []
    for message in messages:
        parts = [part.strip() for part in re.split(r"\b[XYNMK]\b", message)]
        if message != "check" and not any(all(part in text for part in parts) for text in texts):
            unknown.append(message)
    assert messages and not unknown


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_of_the_code_exist(name: str) -> None:
    paths = re.findall(r"`((?:src|tests|benchmarks|experiments|docs)/[\w/.]+)`", text_of(name))
    generated = {"benchmarks/results_gpu.json"}  # written by make bench-gpu
    assert not [path for path in set(paths) - generated if not (ROOT / path).exists()]


# Links --------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Return the anchors that a Markdown viewer derives from the headings."""
    headings = re.findall(r"^#+ +(.+?) *$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    prose = re.sub(r"^```.*?^```", "", text_of(name), flags=re.MULTILINE | re.DOTALL)
    links = [
        *re.findall(r"\]\(<?([^)\s>]+)", prose),
        *re.findall(r"(?:src|href)=\"([^\"]+)\"", prose),
    ]
    broken = []
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (ROOT / name).parent / target if target else ROOT / name
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(link)
    assert not broken


def test_every_figure_is_in_the_gallery_with_its_picture() -> None:
    names = {name for name in dir(plots) if name.startswith("plot_")}
    page = text_of("docs/gallery.md")
    shown = re.findall(r"\(images/gallery/(\w+)\.png\)\s+```python\n(.*?)```", page, re.DOTALL)
    assert {name for name, _ in shown} == names and len(shown) == len(names)
    assert all(re.search(rf"figure = {name}\(", code) for name, code in shown)
    pictures = list((ROOT / "docs" / "images" / "gallery").iterdir())
    assert {path.stem for path in pictures} == names
    assert sum(path.stat().st_size for path in pictures) < 1_500_000


def test_signatures_on_the_page_of_the_ten_functions_are_those_of_the_code() -> None:
    page = text_of("docs/ten_functions.md")
    found = re.findall(r"^`([\w.]+)\((.*)\) -> ([\w\[\]]+)`$", page, re.MULTILINE)
    modules = [importlib.import_module(f"src.{name}") for name in MODULES_OF_TEN]
    assert len(found) == 10
    for name, arguments, returned in found:
        first, _, method = name.partition(".")
        function = next(getattr(module, first) for module in modules if hasattr(module, first))
        signature = inspect.signature(getattr(function, method) if method else function)
        written = ast.parse(f"def f({arguments}): pass").body[0]
        assert isinstance(written, ast.FunctionDef)
        names = [argument.arg for argument in written.args.args + written.args.kwonlyargs]
        parameters = [name for name in signature.parameters if name != "self"]
        assert names == [name for name in parameters if name in names], name
        needed = [p.name for p in signature.parameters.values() if p.default is p.empty]
        assert set(needed) - {"self"} <= set(names), name
        defaults = [*written.args.defaults, *filter(None, written.args.kw_defaults)]
        for argument, default in zip(names[-len(defaults) :], defaults, strict=True):
            assert ast.literal_eval(default) == signature.parameters[argument].default, name
        assert signature.return_annotation == returned


@pytest.mark.parametrize("name", DOCUMENTS)
def test_code_fits_its_box(name: str) -> None:
    languages = ("bash", "sh", "shell", "python", "py")
    lines = [line for block in blocks(name, *languages) for line in block.splitlines()]
    assert not [line for line in lines if len(line) > COMMAND_WIDTH]


def test_the_readme_shows_what_predict_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [shown] = [block for block in blocks("README.md", "text") if block.startswith("sw")]
    [line] = [
        line
        for block in blocks("README.md", "bash", "sh", "shell")
        for line in block.splitlines()
        if line.startswith("ecg predict")
    ]
    main(["--quiet", "sample-data", str(tmp_path / "example"), "--records", "36"])
    capsys.readouterr()
    words = line.replace("data/example", str(tmp_path / "example")).split()[1:]
    assert main(["--quiet", *words[:-1], str(tmp_path / "figures")]) == 0
    printed = capsys.readouterr().out.replace(f"{tmp_path}/", "")
    # Processors differ in the last digit
    number = re.compile(r"\d\.\d{3}")
    assert number.sub("#", printed) == number.sub("#", shown)
    assert list(map(float, number.findall(printed))) == pytest.approx(
        list(map(float, number.findall(shown))), abs=0.002
    )


# Commands and code --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_shell_blocks_parse(name: str) -> None:
    for block in blocks(name, "bash", "sh", "shell"):
        done = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist_with_their_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(name, "bash", "sh", "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"^(?:.*python3? -m src|ecg) (.*)", line)
            if match is None:
                continue
            words = shlex.split(re.split(r"\s(?:&&|\|\|?|;|>)\s", match[1])[0], comments=True)
            if {"--help", "--version"} & set(words):
                continue
            try:
                build_parser().parse_args(words)
            except SystemExit:
                pytest.fail(f"{line}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_blocks_import_what_is_there(name: str) -> None:
    for block in blocks(name, "python", "py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "src":
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_version_is_the_same_everywhere() -> None:
    citation = re.search(r"^version: (\S+)$", text_of("CITATION.cff"), re.MULTILINE)
    entry = re.search(r"version = \{(\S+)\}", text_of("README.md"))
    assert citation and entry and citation[1] == entry[1] == __version__
    assert re.search(
        rf"^## {re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)$", text_of("CHANGELOG.md"), re.M
    )


def test_make_targets_exist() -> None:
    targets = set(
        re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for name in DOCUMENTS:
        used = set(re.findall(r"(?:^|`)make ([\w-]+)", text_of(name), re.MULTILINE))
        assert used <= targets, f"{name}: {used - targets}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_no_machine(name: str) -> None:
    assert not re.findall(r"(?<![\w.])/(?:root|work|home/\w+)/\S*", text_of(name))
