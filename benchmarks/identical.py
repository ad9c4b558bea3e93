"""``python -m benchmarks.identical OLD NEW``: show that two checkouts give the same results, byte
for byte.

Each checkout runs the same commands on the same recordings. Record files, manifests, splits,
training losses and the probabilities of the pretrained networks are then compared. A change that
should not alter results must show none here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_TIME_NS = (
    1_700_000_000_000_000_000  # of every recording, since a manifest holds hashes of their times
)
_N_PREDICTED = 100  # records


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two checkouts; returns 0 when all results are the same and 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identical", description=__doc__)
    parser.add_argument("projects", nargs=2, type=Path, metavar="CHECKOUT")
    parser.add_argument("--challenge", type=Path, metavar="DIR", help="records of Challenge 2021")
    parser.add_argument(
        "--ptbxl", type=Path, metavar="DIR", help="PTB-XL at 500 Hz, with its table"
    )
    parser.add_argument("--save", type=Path, metavar="JSON", help="write the results of both")
    args = parser.parse_args(argv)
    results = [
        compute_results(path.resolve(), args.challenge, args.ptbxl) for path in args.projects
    ]
    if args.save:
        args.save.write_text(json.dumps(results, indent=1), encoding="utf-8")
    old, new = results
    different = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    for name in different:
        print(f"differs: {name}: {old.get(name)} -> {new.get(name)}")  # noqa: T201
    print(f"{len(old)} results compared, {len(different)} differ")  # noqa: T201
    return 1 if different else 0


def compute_results(project: Path, challenge: Path | None, ptbxl: Path | None) -> dict[str, str]:
    """Return name -> hash or text of everything that a checkout computes from the given
    recordings.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(project, folder, "sample-data", "sample", "--records", "60", "--seed", "0")
        roots = {path.name: path for path in sorted((folder / "sample").iterdir()) if path.is_dir()}
        data = {root: str(path.relative_to(folder)) for root, path in roots.items()}
        mapping = next((folder / "sample").rglob("*.csv"))
        _preprocess(project, folder, "sample", str(mapping.relative_to(folder)), data)
        if challenge:
            _copy(challenge, folder / "challenge")
            _run(
                project,
                folder,
                "labels",
                "challenge",
                "--root",
                "challenge",
                "--out",
                "challenge.csv",
            )
            _preprocess(project, folder, "challenge", "challenge.csv", {"challenge": "challenge"})
        if ptbxl:
            _copy(ptbxl, folder / "ptbxl")
            _run(
                project,
                folder,
                "labels",
                "ptbxl",
                "--root",
                "ptbxl",
                "--rate",
                "500",
                "--out",
                "ptbxl.csv",
            )
            _preprocess(project, folder, "ptbxl", "ptbxl.csv", {"ptbxl": "ptbxl"})
        _train(project, folder)
        headers = sorted((folder / ("challenge" if challenge else "sample")).rglob("*.hea"))
        paths = [str(path.relative_to(folder)) for path in headers[:_N_PREDICTED]]
        for network in ("superclass", "statements"):
            checkpoint = project / "artifacts/pretrained" / f"{network}.pth"
            out = f"predictions_{network}.csv"
            _run(project, folder, "predict", "--checkpoint", str(checkpoint), "--out", out, *paths)
        return dict(_collect(folder))


def _preprocess(
    project: Path, folder: Path, name: str, mapping: str, data: Mapping[str, str]
) -> None:
    for root in data.values():
        for path in (folder / root).rglob("*"):
            os.utime(path, ns=(_TIME_NS, _TIME_NS))
    options = [
        option for dataset, root in data.items() for option in ("--data", f"{dataset}={root}")
    ]
    out = f"processed_{name}"
    _run(
        project,
        folder,
        "preprocess",
        "--mapping",
        mapping,
        *options,
        "--out",
        out,
        "--workers",
        "2",
    )


def _train(project: Path, folder: Path) -> None:
    options = ("--epochs", "2", "--seed", "0", "--device", "cpu")
    _run(project, folder, "train", "--processed", "processed_sample", "--out", "run", *options)
    log = json.loads((folder / "run/training_log.json").read_text(encoding="utf-8"))
    losses = [
        {key: value for key, value in row.items() if "loss" in key or "f1" in key}
        for row in log["history"]
    ]
    (folder / "losses.json").write_text(json.dumps(losses), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=shutil.copyfile)


def _collect(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and hash of record files, tables and predictions, and the losses themselves."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        name = str(inside)
        is_output = inside.parts[0].startswith(("processed_", "predictions_", "sample"))
        if name == "losses.json":
            yield name, path.read_text(encoding="utf-8")
        elif path.is_file() and is_output and path.suffix != ".log" and path.name != "run.json":
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def _run(project: Path, folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "src", "--quiet", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{project}: {' '.join(arguments[:6])} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
