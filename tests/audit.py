"""Look up known vulnerabilities of the pinned packages with pip-audit: ``make audit``.

Says why where it cannot: pip-audit is not installed, or its service does not answer.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    if importlib.util.find_spec("pip_audit") is None:
        return _say("skipped: pip-audit is not installed here; install it beside the project and run this again")
    files = [argument for path in sorted(ROOT.glob("requirements*.txt")) for argument in ("-r", str(path))]
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--no-deps", "--disable-pip", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return _say(f"skipped: the vulnerability service did not answer, perhaps for want of a network ({reason[:300]})")
    found = [(package["name"], package["version"], item["id"], item["fix_versions"]) for package in packages for item in package.get("vulns", ())]
    for name, version, identifier, fixes in found:
        _say(f"{name} {version}: {identifier}, mended in {', '.join(fixes) or 'no version yet'}")
    _say(f"{len(packages)} packages, {len(found)} known vulnerabilities")
    return 1 if found else 0


def _say(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
