"""Look up known vulnerabilities of the packages that are installed here: ``make audit``, which CI
runs too.

Asks the advisory database of OSV (https://google.github.io/osv.dev/api/). Status 1 where it knows
of one; where it cannot be reached, status 0 with a line that says that nothing was looked up. Only
names and versions of packages are sent.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.metadata import distributions

DATABASE = os.environ.get("ECG_ADVISORIES", "https://api.osv.dev/v1/querybatch")
TIMEOUT_S = 10.0

Package = tuple[str, str]  # name and version


def installed_packages() -> list[Package]:
    """Return what is installed in this environment; a build of a version, such as +cpu, goes by the
    version.
    """
    found = {
        (str(d.metadata["Name"]).lower(), d.version.split("+")[0])
        for d in distributions()
        if d.metadata["Name"]
    }
    return sorted(found)


def known_vulnerabilities(packages: Sequence[Package], database: str) -> dict[Package, list[str]]:
    """Return the packages with advisories, and their identifiers.

    Raises
    ------
    OSError
        If the database cannot be reached.
    ValueError
        If it answers something else.
    """
    queries = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
        for name, version in packages
    ]
    request = urllib.request.Request(
        database, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        results = json.loads(answer.read())
    try:
        found = [
            [str(advisory["id"]) for advisory in result.get("vulns", ())]
            for result in results["results"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"expected results, found {str(results)[:100]}") from None
    if len(found) != len(packages):
        raise ValueError(f"{len(found)} results for {len(packages)} packages")
    return {
        package: advisories
        for package, advisories in zip(packages, found, strict=True)
        if advisories
    }


def main(database: str = DATABASE) -> int:
    packages = installed_packages()
    try:
        found = known_vulnerabilities(packages, database)
    except (OSError, ValueError) as error:
        _say(
            f"skipped: the advisory database gave no answer, so none of {len(packages)} "
            f"packages was looked up ({str(error)[:200]})"
        )
        return 0
    for (name, version), advisories in found.items():
        _say(f"{name} {version}: {', '.join(advisories)}")
    _say(f"{len(packages)} packages, {len(found)} with known vulnerabilities")
    return 1 if found else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
