from __future__ import annotations

from pathlib import Path

from benchmarks.scale import STEPS, made_up_rows
from src.processed.duplicates import find_duplicates
from src.processed.manifest import load_manifest


def test_every_step_runs_on_a_made_up_manifest(tmp_path: Path) -> None:
    sizes = {name: step(tmp_path, 120) for name, step in STEPS.items()}
    assert [name for name, size in sizes.items() if size] == [
        "save the manifest",
        "make and save splits",
        "journal",
    ]
    manifest = load_manifest(tmp_path)
    assert len(manifest) == 120 and set(manifest["split"]) == {"train", "val", "test"}
    assert find_duplicates(manifest) == [
        ("collection__rec00000000", "collection__rec00000001"),
        ("collection__rec00000050", "collection__rec00000051"),
        ("collection__rec00000100", "collection__rec00000101"),
    ]


def test_rows_are_made_anew_each_time() -> None:
    first, second = made_up_rows(3), made_up_rows(3)
    assert [row.record_id for row in first] == [row.record_id for row in second] and first[
        0
    ].signal_hash != second[0].signal_hash
