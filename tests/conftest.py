"""Fixtures shared by the tests: sample collections, a processed folder, and real recordings where
they are at hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("MPLBACKEND", "Agg")
# Threads of a small model wait for each other longer than they compute
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
sys.path.insert(0, str(ROOT))

from settings import QUICK, SHARED, SMALL  # noqa: E402

from src.config import DataConfig  # noqa: E402
from src.records.sample_collections import SampleData, write_sample_collections  # noqa: E402


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return a function that unpacks a collection of real recordings once, or skips the test with
    the reason.
    """
    unpacker = SHARED / "data" / "unpack.py"

    def unpack(name: str) -> Path:
        if not unpacker.exists():
            pytest.skip(
                f"real recordings are not at hand (no {unpacker.parent.name}/ with them "
                "beside the project)"
            )
        folder = ROOT / "data" / "real"
        subprocess.run(
            [sys.executable, str(unpacker), str(folder), name], check=True, capture_output=True
        )
        return folder / name

    return unpack


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    """Thirty-six generated recordings in three collections."""
    return write_sample_collections(tmp_path_factory.mktemp("sample"), n_records=36, seed=1)


@pytest.fixture(scope="session")
def sample_roots(sample: SampleData) -> DataConfig:
    return DataConfig(roots={name: str(root) for name, root in sample.data.items()})


@pytest.fixture(scope="session")
def processed(
    sample: SampleData, sample_roots: DataConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The sample collections at 100 Hz and 1000 samples; tests must not change it."""
    from src.config import ExecutionConfig
    from src.preprocessing import run_preprocessing

    out = tmp_path_factory.mktemp("processed")
    run_preprocessing(
        sample_roots,
        out,
        mapping=sample.mapping,
        config=SMALL,
        execution=ExecutionConfig(workers=1),
    )
    return out


@pytest.fixture(scope="session")
def trained(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training run on the processed sample; tests must not change it."""
    from src.training import run_training

    out = tmp_path_factory.mktemp("trained")
    run_training(QUICK, processed, out)
    return out
