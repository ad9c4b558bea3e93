"""Run the fuzzer: ``python -m tests.fuzz --inputs 20000``; exit status 1 where an input is handled
wrongly.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .runner import run_fuzzer, save_findings, try_input
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--inputs", type=int, default=20000, help="inputs over all targets (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed gives other inputs (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=TARGETS,
        default=[],
        metavar="TARGET",
        help=f"of {', '.join(TARGETS)} (default: all)",
    )
    parser.add_argument(
        "--again",
        type=int,
        metavar="INDEX",
        help="make and read one input of the one target, in this process, and keep its files",
    )
    parser.add_argument(
        "--out", type=Path, help="JSON of the findings, or folder for --again (default: none)"
    )
    args = parser.parse_args()
    if args.again is not None:
        folder = args.out or Path("fuzz_input")
        folder.mkdir(exist_ok=True)
        print(*try_input(args.only[0], args.seed, args.again, folder))  # noqa: T201
        return 0
    report = run_fuzzer(args.inputs, args.seed, args.only)
    if args.out:
        save_findings(report, args.out)
    print(report)  # noqa: T201
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
