"""What every module may lean on: logging set-up, seeding, device info, project paths, JSON and
atomic writes.

Nothing of the project is imported here, and heavy libraries are imported inside the functions that
need them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import hashlib
import html
import importlib
import json
import logging
import math
import os
import platform
import random
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
# One slash or two, since pathlib makes one of two; C:/ is a drive
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?!/)")
_FILE = re.compile(r"^file:(?://(?=/)|(?=/))")
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")
H = TypeVar("H", bound=Hashable)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
EN_DASH = "\N{EN DASH}"
PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ProjectPaths:
    """Where a project keeps its inputs and outputs; `project_paths` makes one from a root
    folder.
    """

    root: Path
    mapping: Path
    data: Path
    artifacts: Path
    processed: Path
    figures: Path
    logs: Path


def project_paths(root: str | Path = PROJECT_ROOT) -> ProjectPaths:
    """Return the standard locations below `root`; no folder is made."""
    root = Path(root)
    artifacts = root / "artifacts"
    logs = root / "logs"
    return ProjectPaths(
        root=root,
        mapping=logs / "unified_label_mapping.csv",
        data=root / "data",
        artifacts=artifacts,
        processed=artifacts / "processed",
        figures=root / "figures",
        logs=logs,
    )


def setup_logging(level: int | str = logging.INFO, file: str | Path | None = None) -> None:
    """Send the log to stderr, and to `file` when one is given; calling it again replaces the
    handlers.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if file is not None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )


def keep_freed_memory(limit: int = 2**26) -> None:
    """Have the C library keep the memory of arrays that are freed, up to `limit` bytes, for those
    that follow.

    The GNU library gives arrays of over 128 kB back to the system at once, and getting the same
    memory again, page by page, costs a fifth of the time that a record takes to preprocess, and up
    to a seventh of a training step on a CPU. Arrays of over 32 MB, the most that the library can
    keep, are still given back, and the process keeps the rest until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, limit)


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch.

    Parameters
    ----------
    seed
        0 to 2**32 - 1.
    deterministic
        Also ask torch for deterministic kernels, which cost some speed on CUDA.

    Raises
    ------
    ValueError
        If the seed is outside that range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}: expected an integer from 0 to {2**32 - 1}")
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # required by cuBLAS for repeatable sums
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


@dataclass(frozen=True)
class DeviceInfo:
    """The compute device and machine a run uses; `amp_dtype` is None where full precision is
    best.
    """

    device: str
    name: str
    cores: int
    memory_gib: float
    device_memory_gib: float | None
    amp_dtype: str | None


def available_cores() -> int:
    """Return the number of cores this process may use, which a container often limits."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Return the machine's memory in GiB, or NaN where the platform does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return math.nan


class UsageError(ValueError):
    """What was asked for cannot be, whatever the data are: a value out of range, or options that do
    not go together.
    """


def device_info(device: str = "auto") -> DeviceInfo:
    """Describe the device that training will use.

    Parameters
    ----------
    device
        ``auto`` takes CUDA, then MPS, then the CPU; or the name of one of them, as ``cuda:1``.

    Raises
    ------
    ValueError
        If the device is not there.
    """
    import torch

    device = _pick_device(device)
    name, memory, amp = platform.processor() or platform.machine(), None, None
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory / 2**30
        amp = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return DeviceInfo(device, name, available_cores(), round(memory_gib(), 1), memory, amp)


def _pick_device(device: str) -> str:
    import torch

    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(kind for kind, there in has.items() if there)
    if not has.get(device.split(":")[0], False):
        there = ", ".join(kind for kind, ok in has.items() if ok)
        raise ValueError(f"device {device!r} is not available here: choose auto or one of {there}")
    return device


def import_extra(module: str, purpose: str, install: str) -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    module
        Its name; the package is what stands before the first dot.
    purpose
        What needs it, for the message.
    install
        What pip must be given to have it: ``-r`` and a requirements file, or a name.

    Raises
    ------
    ValueError
        If it is not installed, or does not work here.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ValueError(
            f"{purpose} needs the package {module.split('.')[0]}: pip install {install}"
        ) from None
    except (
        ImportError,
        OSError,
    ) as error:  # a library that was built for another machine or version
        raise ValueError(
            f"{purpose} needs the package {module.split('.')[0]}, which does not load here: {error}"
        ) from None


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it on success and removed on failure.

    A reader thus sees the old file or the new one, never a part. The bytes reach the disk before
    the rename, so that a power cut cannot leave an empty file under the final name, and the new
    name before this returns.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        sync_path(temporary)
        temporary.replace(path)
        sync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a name beside `path` that says which process of which machine makes it, so that others
    know what is left over.
    """
    return path.with_name(temporary_name(path.name))


def temporary_name(name: str) -> str:
    """Return the temporary name of a file that shall be called `name`."""
    return f".tmp-{host_id()}-{os.getpid()}-{os.urandom(4).hex()}{os.path.splitext(name)[1]}"


@lru_cache(maxsize=1)
def host_id() -> str:
    """Return six letters that stand for this machine."""
    return hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()


def sync_path(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; where a system syncs no folders
    that is all it can do.
    """
    try:
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except PermissionError:  # a folder on Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
            errno.EROFS,
        ):  # a file system that cannot sync this
            raise
    finally:
        os.close(handle)


def printable(text: str, limit: int = 200) -> str:
    """Return a text as it may stand in a log, a terminal and a table.

    Control characters and what no encoding can write are escaped, and what is longer than `limit`
    is cut.
    """
    if len(text) > limit:
        text = text[: limit - 4] + " ..."
    if text.isprintable():  # most are, and the pattern finds nothing in these
        return text
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def as_url(path: str | Path) -> str | None:
    """Return the URL that a text or path is, without a slash at its end, or None for a local path.

    Raises
    ------
    ValueError
        If it holds a password, which would end up in manifests and logs.
    """
    text = str(path)
    match = _URL.match(text)
    if match is None or match[1].lower() == "file":
        return None
    url = f"{match[1].lower()}://{text[match.end() :].rstrip('/')}"
    if _PASSWORD.search(url):
        raise ValueError(
            f"{url.split(':')[0]}: the address holds a password; give it through the "
            "environment or the settings of fsspec"
        )
    return url


def as_path(path: str | Path) -> Path:
    """Return a local path, also of a ``file://`` URL."""
    return Path(_FILE.sub("", str(path)))


def shown_path(path: str | Path) -> str:
    """Return a path as it stands in what a reader sees: from the project folder on where it lies in
    it.
    """
    path = Path(path)
    return (
        path.relative_to(PROJECT_ROOT).as_posix()
        if path.is_relative_to(PROJECT_ROOT)
        else str(path)
    )


def load_json(path: str | Path) -> Any:
    """Read a JSON file; a file that is not JSON raises ValueError naming it."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def save_json(value: Any, path: str | Path) -> None:
    """Write `value` as strict, indented JSON, atomically.

    Dataclasses, paths, tuples and NumPy scalars and arrays are converted; NaN and infinities become
    null, since strict JSON has no word for them.
    """
    text = json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def to_jsonable(value: Any) -> Any:
    """Convert nested containers of dataclasses, paths and NumPy values to plain JSON types."""
    if value is None or type(value) in (
        str,
        int,
        bool,
    ):  # most are, and asking further takes ten times as long
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_jsonable(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return to_jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


_encode_sorted = json.JSONEncoder(sort_keys=True, ensure_ascii=True).encode


def stable_hash(value: Any, n_hex: int = 16) -> str:
    """Return a hexadecimal hash of a JSON-like value that is the same in every process and on every
    machine.
    """
    return hashlib.blake2b(_encode_sorted(to_jsonable(value)).encode(), digest_size=32).hexdigest()[
        :n_hex
    ]


def join_pairs(pairs: Iterable[tuple[H, H]]) -> list[tuple[H, ...]]:
    """Return the sets of items that pairs connect, each in the order in which its items came
    first.
    """
    parent: dict[H, H] = {}

    def root(item: H) -> H:
        while parent.setdefault(item, item) != item:
            parent[item] = item = parent[parent[item]]
        return item

    for first, second in pairs:
        parent[root(second)] = root(first)
    groups: dict[H, list[H]] = {}
    for item in parent:
        groups.setdefault(root(item), []).append(item)
    return [tuple(group) for group in groups.values()]


def rng_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators as tensors and plain values."""
    import torch

    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Restore the states that `rng_state` returned."""
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, normal = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, normal))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])


class Rich:
    """Shows itself in a notebook as HTML, and as ``str(self)`` where a front end shows text
    only.
    """

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def format_number(value: float | None, digits: int = 3, missing: str = "-") -> str:
    """Return a number with `digits` decimals, or `missing` for None and NaN."""
    if value is None or math.isnan(value):
        return missing
    return f"{value:.{digits}f}"


def format_interval(interval: Sequence[float] | None, digits: int = 3, missing: str = "-") -> str:
    """Return an interval as ``[low, high]`` with `digits` decimals, or `missing` for None."""
    if interval is None:
        return missing
    low, high = interval
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def format_range(low: float, high: float, digits: int = 3) -> str:
    """Return two numbers with an en dash between them, such as 0.812\N{EN DASH}0.866."""
    return f"{low:.{digits}f}{EN_DASH}{high:.{digits}f}"


def format_duration(seconds: float, minutes_from: float = 90.0) -> str:
    """Return a duration in seconds, minutes or hours.

    Parameters
    ----------
    seconds
        The duration.
    minutes_from
        Seconds from which minutes are shown; hours are shown from as many minutes.
    """
    if seconds < minutes_from:
        return f"{seconds:.0f} s"
    if seconds < 60 * minutes_from:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_cell(value: object) -> str:
    """Return a table cell: thousands separated, three decimals, an en dash for None."""
    if value is None:
        return EN_DASH
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def html_table(header: Sequence[str], rows: Iterable[Iterable[object]], caption: str = "") -> str:
    """Return a table; numbers stand to the right, the first column and texts to the left."""
    head = "".join(f'<th style="text-align:left">{html.escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    title = (
        f'<caption style="text-align:left;font-weight:600">{html.escape(caption)}</caption>'
        if caption
        else ""
    )
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    side = "left" if isinstance(value, str) else "right"
    return f'<td style="text-align:{side}">{html.escape(format_cell(value))}</td>'


def html_facts(facts: Mapping[str, object]) -> str:
    """Return names and values side by side, without those that are empty."""
    items = (
        '<span style="white-space:nowrap;margin-right:1.5em"><span '
        f'style="opacity:.65">{html.escape(name)}</span> '
        f"<b>{html.escape(format_cell(value))}</b></span> "
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f"<p>{''.join(items)}</p>"


def lazy_exports(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package that imports its names when they are used.

    Importing one module of a package then does not load the others (PEP 562).

    Parameters
    ----------
    package
        Name of the package.
    homes
        Module of the package -> names that it defines.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home_of[name]}"), name)

    return find, lambda: sorted(home_of)
