from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from src.processed.manifest import MANIFEST_COLUMNS, ManifestRow, load_manifest, save_manifest
from src.processed.mirror import local_copy
from src.records.remote import RemoteFolder

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteFolder]:
    """A folder at a URL, in the memory of this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield RemoteFolder("memory://mirror")
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def upload(store: RemoteFolder, folder: Path, hashes: dict[str, str], *, missing: str = "") -> None:
    """Upload a manifest, and for each record a file that holds its hash."""
    rows = [ManifestRow("d", name, status="ok", input_hash=text) for name, text in hashes.items()]
    folder.mkdir(exist_ok=True)
    save_manifest(pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS), dtype=str), folder)
    files = [(folder / "manifest.csv", "manifest.csv")]
    for name, text in hashes.items():
        if name != missing:
            (folder / name).write_text(text)
            files.append((folder / name, f"records/d__{name}.npz"))
    store.upload(files)


def test_a_local_folder_is_its_own_copy(tmp_path: Path) -> None:
    assert local_copy(tmp_path) == tmp_path


def test_only_new_and_changed_records_are_fetched(store: RemoteFolder, tmp_path: Path) -> None:
    upload(store, tmp_path / "up", {"a": "1", "b": "1"})
    copy = local_copy(store.url)
    kept = copy / "records" / "d__a.npz"
    kept.write_text("kept")

    upload(store, tmp_path / "up", {"a": "1", "b": "2", "c": "1"})
    assert local_copy(store.url) == copy
    contents = {path.name: path.read_text() for path in (copy / "records").iterdir()}
    assert contents == {"d__a.npz": "kept", "d__b.npz": "2", "d__c.npz": "1"}
    assert load_manifest(copy)["input_hash"].tolist() == ["1", "2", "1"]


def test_a_record_file_that_does_not_exist_is_named(store: RemoteFolder, tmp_path: Path) -> None:
    upload(store, tmp_path / "up", {"a": "1", "b": "1"}, missing="b")
    with pytest.raises(ValueError, match=r"mirror/records/d__b\.npz: the manifest names it, but"):
        local_copy(store.url)


def test_a_url_without_records_is_named(store: RemoteFolder) -> None:
    with pytest.raises(ValueError, match="no processed records here; run preprocess with --out"):
        local_copy(store.url)
