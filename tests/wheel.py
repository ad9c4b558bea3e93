"""Install the project's wheel into an empty environment, and predict with it from another folder.

Run by ``make wheel``. It needs a package index, as ``make env`` does.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
N_SAMPLES = 12
# As many long annotated recordings are written beside the short ones.
N_RECORDS = 2 * N_SAMPLES


def main() -> int:
    """Return 0 if the installed command predicts, and writes nothing beside the package."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        environment = Path(folder) / "environment"
        venv.create(environment, with_pip=True)
        scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")

        def run(program: str, *arguments: str) -> str:
            command = [str(scripts / program), *arguments]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
            return done.stdout

        pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
        run("python", *pip, "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT))
        [wheel] = Path(folder).glob("*.whl")
        run("python", *pip, "install", str(wheel))
        run("ecg", "sample-data", "data", "--records", str(N_SAMPLES))
        run("ecg", "predict", "--out", "predictions.csv", "data")
        with open(work / "predictions.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        n_ok = sum(row["status"] == "ok" for row in rows)
        if len(rows) != N_RECORDS or not n_ok:
            sys.exit(
                f"{wheel.name}: {n_ok} of {len(rows)} recordings were predicted, "
                f"expected {N_RECORDS}"
            )
        root = run(
            "python", "-c", "from src.utils import project_paths; print(project_paths().root)"
        )
        if Path(root.strip()).resolve() != work.resolve():
            sys.exit(f"{wheel.name}: outputs would go to {root.strip()}, expected {work}")
        print(f"{wheel.name}: {n_ok} of {len(rows)} recordings predicted")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
