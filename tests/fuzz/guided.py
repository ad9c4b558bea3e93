"""Coverage-guided fuzzing of one target, where atheris is installed: ``python -m tests.fuzz.guided
wfdb -runs=100000``.

The bytes that reach new code are kept and mutated further; they stand in for the file that a record
is opened by, beside the other files of a seed. What follows the target goes to libFuzzer, which
leaves an input that ended it in the folder of the call.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from .runner import LIMIT_BYTES
from .seeds import SUFFIXES


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in SUFFIXES:
        sys.stderr.write(f"target is {name!r}: expected one of {', '.join(SUFFIXES)}\n")
        return 2
    if importlib.util.find_spec("atheris") is None:
        sys.stdout.write("skipped: atheris is not installed here; it has wheels for Linux\n")
        return 0
    import atheris

    with atheris.instrument_imports(include=["src.records"]):
        import src.records  # noqa: F401
    from .targets import check_record, seeds_of

    seeds = seeds_of(SUFFIXES[name])
    with TemporaryDirectory() as root:
        corpus, folder = Path(root, "corpus"), Path(root, "record")
        corpus.mkdir()
        folder.mkdir()
        for i, seed in enumerate(seeds):
            (corpus / str(i)).write_bytes(seed.files[seed.entry])

        def try_bytes(raw: bytes) -> None:
            rng = random.Random(len(raw))
            seed = rng.choice(seeds)
            for file, content in {**seed.files, seed.entry: raw}.items():
                (folder / file).write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check_record(rng, folder / seed.entry)

        limits = ["-timeout=60", f"-rss_limit_mb={2 * LIMIT_BYTES >> 20}"]
        atheris.Setup([sys.argv[0], *limits, *arguments[1:], str(corpus)], try_bytes)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
