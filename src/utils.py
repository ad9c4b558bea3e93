"""Helpers for every module: logging, seeds, devices, paths, atomic writes, JSON, text and HTML.

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
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
H = TypeVar("H", bound=Hashable)

CODE_ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds `src`."""

# An installed package must not write beside itself
_IS_INSTALLED = CODE_ROOT.name in ("site-packages", "dist-packages")
PROJECT_ROOT = Path.cwd() if _IS_INSTALLED else CODE_ROOT
"""The folder of inputs and outputs: the clone, or the current folder where src is installed."""

EN_DASH = "\N{EN DASH}"
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

# One slash or two, since pathlib reduces two to one; a single letter is a Windows drive.
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?!/)")
_FILE = re.compile(r"^file:(?://(?=/)|(?=/))")
_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Letters and marks without a glyph that Unicode does not class as format characters: fillers,
# variation selectors, and the code points that it keeps for more of them.
_UNSEEN = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U00016fe4\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
UNSEEN_MARKS = re.compile(f"[{_UNSEEN}]")
"""Characters that nobody sees, besides those that Unicode classes as controls and formats."""
_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
_LEFTOVER = re.compile(r"\.tmp-([0-9a-f]{6})-(\d{1,9})-[0-9a-f]{8}(?:\.|$)")
# A temporary file of another machine is a leftover once it was not touched for this long.
_FOREIGN_LEFTOVER_S = 7 * 24 * 3600.0

# Parameters of mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


# Errors and logging -------------------------------------------------------------------------------


class UsageError(ValueError):
    """A wrong request, whatever the data: a value out of range, or options that conflict."""


class LogFormatter(logging.Formatter):
    """Formats log records so that texts from files cannot steer a terminal or forge a line.

    What follows the end of a line is indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  as logging calls it
        """Return the line of a record, whose `message` logging has just set."""
        # A line that began in a text from a file would look like one of the log.
        record.message = printable_lines(record.message).replace("\n", "\n  ")
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  as logging calls it
        """Return a traceback, whose lines stay lines."""
        return printable_lines(super().formatException(ei))


def setup_logging(level: int | str = logging.INFO, file: str | Path | None = None) -> None:
    """Log to standard error and, if given, to `file`; another call replaces the handlers.

    A notebook shows all of standard error on red. There the log goes to standard output instead,
    and so do Python's warnings.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(message_stream())]
    logging.captureWarnings(in_notebook())
    if file is not None:
        file = output_file(file)
        make_folder(file.parent)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(LogFormatter(LOG_FORMAT, "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=handlers, force=True)


def message_stream() -> TextIO:
    """Return the stream of log lines and progress: standard error, in a notebook the output."""
    return sys.stdout if in_notebook() else sys.stderr


def in_notebook() -> bool:
    """Return whether this process is a notebook's kernel.

    That ipykernel was imported is not enough, since libraries import it too.
    """
    kernel = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    return kernel is not None and bool(kernel.initialized())


# Paths --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProjectPaths:
    """The folders of a project's inputs and outputs; see `project_paths`."""

    root: Path
    mapping: Path
    data: Path
    artifacts: Path
    processed: Path
    figures: Path
    logs: Path


def project_paths(root: str | Path = PROJECT_ROOT) -> ProjectPaths:
    """Return the standard folders below `root`, without creating them."""
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


def shown_path(path: str | Path) -> str:
    """Return a path for display, relative to the project folder if it and the user are inside."""
    path = Path(path)
    if path.is_relative_to(PROJECT_ROOT) and Path.cwd().is_relative_to(PROJECT_ROOT):
        return path.relative_to(PROJECT_ROOT).as_posix()
    return str(path)


def as_url(path: str | Path) -> str | None:
    """Return a URL without its trailing slash, or None for a local path.

    Raises
    ------
    ValueError
        If the URL contains a password, which would end up in manifests and logs.
    """
    text = str(path)
    match = _URL.match(text)
    if match is None or match[1].lower() == "file":
        return None
    url = f"{match[1].lower()}://{text[match.end() :].rstrip('/')}"
    if _PASSWORD.search(url):
        raise ValueError(
            f"{url.split(':')[0]}: the address holds a password; give it through the environment "
            "or the settings of fsspec"
        )
    return url


def as_path(path: str | Path) -> Path:
    """Return a local path, also of a ``file://`` URL."""
    return Path(_FILE.sub("", str(path)))


# Machine and device -------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeviceInfo:
    """The device and machine of a run; `amp_dtype` is None where full precision is best."""

    device: str
    name: str
    cores: int
    memory_gib: float
    device_memory_gib: float | None
    amp_dtype: str | None


def device_info(device: str = "auto") -> DeviceInfo:
    """Describe the device that training will use.

    Parameters
    ----------
    device
        ``auto`` for the first available of CUDA, MPS and CPU; or a name such as ``cuda:1``.

    Raises
    ------
    ValueError
        If the device is not available.
    """
    import torch

    device = _choose_device(device)
    name = platform.processor() or platform.machine()
    device_memory_gib = None
    amp_dtype = None
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        name = properties.name
        device_memory_gib = properties.total_memory / 2**30
        amp_dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return DeviceInfo(
        device, name, available_cores(), round(memory_gib(), 1), device_memory_gib, amp_dtype
    )


def _choose_device(device: str) -> str:
    import torch

    # In order of preference.
    available = [
        kind
        for kind, is_available in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
            ("cpu", True),
        )
        if is_available
    ]
    if device == "auto":
        return available[0]
    if device.split(":")[0] not in available:
        raise ValueError(
            f"device {device!r} is not available here: choose auto or one of {', '.join(available)}"
        )
    return device


def available_cores() -> int:
    """Return the number of cores this process may use, which containers often limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Return the machine's memory in GiB, or NaN where it is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return math.nan


def keep_freed_memory(limit: int = 2**26) -> None:
    """Make glibc keep up to `limit` bytes of freed memory for the next arrays.

    By default glibc returns arrays above 128 kB to the system and page-faults on each reuse, which
    costs a fifth of the time to preprocess a record, and up to a seventh of a training step on a
    CPU. Arrays above 32 MB, the most that glibc can keep, are still returned. The process holds the
    kept memory until it ends. Other systems and C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, limit)


@lru_cache(maxsize=1)
def host_id() -> str:
    """Return six hexadecimal digits that identify this machine."""
    return hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()


# Random numbers -----------------------------------------------------------------------------------


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch.

    Parameters
    ----------
    seed
        0 to 2**32 - 1.
    deterministic
        Also ask torch for deterministic kernels, which are slower on CUDA.

    Raises
    ------
    ValueError
        If the seed is outside that range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}: expected an integer from 0 to {2**32 - 1}")
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        # cuBLAS requires this for repeatable sums.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


RngState = dict[str, Any]
"""Tensors and plain values, as a checkpoint stores them."""


def rng_state() -> RngState:
    """Return the random states of Python, NumPy and torch, as tensors and plain values."""
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


def restore_rng_state(state: Mapping[str, Any]) -> None:
    """Restore the states that `rng_state` returned."""
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, normal = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, normal))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])


# Files --------------------------------------------------------------------------------------------


def output_file(path: str | Path) -> Path:
    """Return the file that an output path names; a link is followed to the file that it leads to.

    Raises
    ------
    ValueError
        If a device, pipe, socket or folder has this name, or a file that of its folder. Replacing
        a device by a file would take it away from the machine. Or if it is a URL.
    """
    path = Path(path)
    _refuse_url(path)
    mode = _mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise ValueError(f"{path}: is {_kind_of(mode)}: expected the name of a file to write")
    if not path.is_symlink():
        output_folder(path.parent)
        return path
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise ValueError(f"{path}: is a link to {target}, whose folder does not exist: create it")
    return target


def output_folder(path: str | Path) -> Path:
    """Return the folder that an output path names, without creating it.

    Raises
    ------
    ValueError
        If the path, or a folder above it, is a file, device, pipe or socket, or a link to nothing;
        or if it is a URL, which would become a local folder of that name.
    """
    path = Path(path)
    _refuse_url(path)
    for folder in (path, *path.parents):
        mode = _mode_of(folder)
        if mode is None and folder.is_symlink():
            raise ValueError(f"{folder}: is a link to nothing: expected a folder to write to")
        if mode is not None and not stat.S_ISDIR(mode):
            raise ValueError(f"{folder}: is {_kind_of(mode)}: expected a folder to write to")
        if mode is not None:
            break
    return path


def make_folder(path: str | Path) -> Path:
    """Create a folder for output unless it exists, and return it; refuse as `output_folder`."""
    path = output_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _refuse_url(path: Path) -> None:
    # Without the slash, `s3://` itself would be a folder "s3:".
    if _URL.match(f"{path}/"):
        raise ValueError(f"{path}: is a URL: expected a local path to write to")


def _mode_of(path: Path) -> int | None:
    """Return the mode of what a path leads to, or None if nothing is there."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ValueError(f"{path}: is a link that leads to itself: expected an output") from None


def _kind_of(mode: int) -> str:
    kinds = (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it on success and removed on failure.

    A reader thus sees the old file or the new one, never a part of it. The bytes are synced to the
    disk before the rename, so that a power cut cannot leave an empty file under the final name. The
    new name is synced before this returns. The file that a link leads to is written, not the link.
    Temporary files that killed commands left in the folder are removed first.

    Raises
    ------
    ValueError
        As `output_file` does.
    """
    path = output_file(path)
    make_folder(path.parent)
    _tidy_once(str(path.parent.absolute()))
    temporary = temporary_path(path)
    try:
        yield temporary
        sync_path(temporary)
        temporary.replace(path)
        sync_path(path.parent)
    except OSError as error:
        # A full disk is reported without the file that did not fit.
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a path beside `path` whose name identifies this process and machine.

    Other runs can thus tell leftovers from files that are being written.
    """
    return path.with_name(temporary_name(path.name))


def temporary_name(name: str) -> str:
    """Return a temporary name for a file that will be renamed to `name`."""
    return f".tmp-{host_id()}-{os.getpid()}-{os.urandom(4).hex()}{os.path.splitext(name)[1]}"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder for files that are needed for a while, in the system's place for them.

    Folders that killed commands left there are removed first.
    """
    place = Path(tempfile.gettempdir())
    _tidy_once(str(place))
    folder = place / temporary_name("")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1024)
def _tidy_once(folder: str) -> None:
    """Remove the leftovers in a folder, once in the life of a process, as looking takes time."""
    remove_leftovers([Path(folder)])


def remove_leftovers(folders: Iterable[Path]) -> int:
    """Delete the temporary files and folders of dead processes in some folders.

    Returns
    -------
    int
        Their number.
    """
    removed = 0
    for folder in folders:
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            temporary = [entry for entry in entries if entry.name.startswith(".tmp-")]
        removed += sum(_is_leftover(entry) and _remove(entry) for entry in temporary)
    if removed:
        logger.info("removed %d temporary files that an interrupted run left", removed)
    return removed


def _is_leftover(entry: os.DirEntry[str]) -> bool:
    """Return whether a temporary file is of a dead process, or of another machine and old."""
    match = _LEFTOVER.match(entry.name)
    if match is None:
        # Not a name that we give.
        return False
    if match[1] == host_id():
        return not is_alive(int(match[2]))
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FOREIGN_LEFTOVER_S
    except OSError:
        return False


def _remove(entry: os.DirEntry[str]) -> bool:
    """Remove a file or folder if this user may, and return whether it is gone."""
    try:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink(missing_ok=True)
    except OSError:
        # Another user's, or removed by another process at this moment.
        return False
    return True


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine is running."""
    # Elsewhere, os.kill with signal 0 may end the process.
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and only waits for its parent to read its exit status."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
        # The state follows the name of the command, which may hold spaces and parentheses itself.
        return status.rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def sync_path(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Systems that cannot sync a folder skip it.
    """
    try:
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    except PermissionError:
        # A folder on Windows.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot sync this kind of file.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


MAX_TABLE_BYTES = 2**30
"""Largest table or settings file that is read: a label mapping of ten million rows."""
_HEAD_BYTES = 2**16


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file to read its bytes; never wait for a pipe, and never read a device.

    Raises
    ------
    OSError
        If it cannot be opened, or is a folder, a pipe, a socket or a device, or a link to one.
    """
    # Some devices do something when they are opened, so the kind is known before.
    require_regular(path)
    # A pipe may have taken the place of the file since. Without this flag, opening it waits.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        require_regular(path, handle)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def require_regular(path: str | Path, handle: int | None = None) -> None:
    """Raise as `open_regular` unless a path, or what was opened there, is a regular file."""
    status = os.stat(path if handle is None else handle)
    if not stat.S_ISREG(status.st_mode):
        kind = "is a folder" if stat.S_ISDIR(status.st_mode) else "is a pipe or device"
        raise OSError(errno.EINVAL, f"{kind}: expected a file", str(path))


def read_regular(
    path: str | Path,
    max_bytes: int = MAX_TABLE_BYTES,
    check_head: Callable[[bytes], None] | None = None,
) -> bytes:
    """Return the bytes of a file of text, whose size is checked before memory is taken.

    Parameters
    ----------
    path
        The file.
    max_bytes
        Largest size that is read.
    check_head
        Called with the first 64 KiB, before the rest is read; raises an error to refuse the file.

    Raises
    ------
    OSError
        As `open_regular`.
    ValueError
        If it is larger than `max_bytes`, or sparse, which no text is: a sparse file may claim any
        size. The message names the file.
    """
    with open_regular(path) as stream:
        n_bytes = os.fstat(stream.fileno()).st_size
        if n_bytes > max_bytes:
            shown = printable(str(path), 1000)
            raise ValueError(f"{shown}: has {n_bytes} bytes: expected at most {max_bytes}")
        _require_whole(stream, path)
        head = stream.read(min(n_bytes, _HEAD_BYTES))
        if check_head is not None:
            check_head(head)
        # A file below /proc may hold more than it states, or without end.
        return head + stream.read(n_bytes - len(head))


def require_whole(path: str | Path) -> None:
    """Raise as `read_regular` if a file is not regular or is sparse; any size is allowed."""
    with open_regular(path) as stream:
        _require_whole(stream, path)


def _require_whole(stream: BinaryIO, path: str | Path) -> None:
    n_bytes = os.fstat(stream.fileno()).st_size
    if n_bytes > _HEAD_BYTES and _has_hole(stream.fileno(), n_bytes):
        raise ValueError(
            f"{printable(str(path), 1000)}: claims {n_bytes} bytes and holds fewer (a sparse "
            "file): expected text"
        )


def _has_hole(handle: int, n_bytes: int) -> bool:
    """Return whether a part of an open file is not on the disk, where the system can tell."""
    if not hasattr(os, "SEEK_HOLE"):
        return False
    try:
        hole = os.lseek(handle, 0, os.SEEK_HOLE)
        os.lseek(handle, 0, os.SEEK_SET)
    except OSError:
        return False
    return hole < n_bytes


# JSON and hashes ----------------------------------------------------------------------------------


def load_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If the file is not JSON, too large or sparse; the message names it.
    """
    shown = printable(str(path), 1000)
    content = read_regular(path)
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_require_single_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown}: not valid JSON ({printable(str(error))})") from None


def _require_single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file; of two values with one name, json would take the second."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} is repeated: expected each name once")
    return values


def save_json(value: Any, path: str | Path) -> None:
    """Write `value` as strict, indented JSON, atomically.

    Dataclasses, paths, tuples, NumPy scalars and arrays are converted. NaN and infinities become
    null, since strict JSON does not have them.
    """
    text = json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def to_jsonable(value: Any) -> Any:
    """Convert nested containers of dataclasses, paths and NumPy values to plain JSON types."""
    # Most values are of these types, and the checks below take ten times as long.
    if value is None or type(value) in (str, int, bool):
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
    # NumPy scalars and arrays.
    if hasattr(value, "tolist"):
        return to_jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


_encode_sorted = json.JSONEncoder(sort_keys=True, ensure_ascii=True).encode


def stable_hash(value: Any, n_hex: int = 16) -> str:
    """Return `n_hex` digits of a hash of a JSON-like value, equal on all machines."""
    text = _encode_sorted(to_jsonable(value))
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:n_hex]


# Text ---------------------------------------------------------------------------------------------


def printable(text: str, limit: int | None = 200) -> str:
    """Return a text that is safe to print in a log, a terminal and a table.

    All that nobody sees or that steers what is shown is escaped: control characters, among them
    the escape that begins a command to a terminal, line ends, marks that turn the direction of
    text, invisible marks, blanks other than the space, and what no encoding can write. The result
    is cut to `limit` characters; None cuts nothing.
    """
    shown = text if limit is None else _cut(text, limit)
    # Most texts are plain, and then their characters need not be looked at one by one.
    if shown.isascii() and shown.isprintable():
        return shown
    shown = "".join(map(_escape, shown))
    # A code is longer than its character
    return shown if limit is None else _cut(shown, limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def printable_lines(text: str) -> str:
    """Return a text of several lines, each of which is safe to print; see `printable`."""
    return "\n".join(printable(line, None) for line in text.split("\n"))


def _escape(mark: str) -> str:
    """Return a character, or its code where it is unseen or steers."""
    if mark.isprintable() and not UNSEEN_MARKS.match(mark):
        return mark
    code = ord(mark)
    if code < 0x100:
        return _ESCAPES.get(mark, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def holds_unicode(values: NDArray[Any]) -> bool:
    """Return whether text in an array from a file is Unicode.

    NumPy makes strings of any code points, with which Python fails as soon as they are used.
    """
    if values.dtype.kind != "U" or not values.size:
        return True
    order = values.dtype.byteorder.replace("=", "<")
    code_points = np.ravel(values, order="K").view(f"{order}u4")
    return bool(code_points.max() <= sys.maxunicode)


def storable(text: str, limit: int = 200) -> str:
    """Return a text that every table and file can hold, and that is compared with others.

    Control characters, ends of lines and what no encoding can write are escaped. Other invisible
    marks stay: two spellings of an id may differ in them, and ids are compared without. A text
    longer than `limit` is cut. To show a text, use `printable`.
    """
    text = _cut(text, limit)
    if text.isprintable():
        return text
    return _UNSTORABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


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
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


# HTML ---------------------------------------------------------------------------------------------


def html_text(text: str) -> str:
    """Return a text as HTML that shows it and nothing else; see `printable_lines`."""
    return html.escape(printable_lines(text))


class Rich:
    """Base of objects shown as HTML in a notebook, and as ``str(self)`` in text-only front ends."""

    def _repr_html_(self) -> str:
        return f"<pre>{html_text(str(self))}</pre>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": printable_lines(str(self)), "text/html": self._repr_html_()}


def html_table(header: Sequence[str], rows: Iterable[Iterable[object]], caption: str = "") -> str:
    """Return an HTML table, with numbers aligned right and texts aligned left."""
    title = ""
    if caption:
        style = "text-align:left;font-weight:600"
        title = f'<caption style="{style}">{html_text(caption)}</caption>'
    head = "".join(f'<th style="text-align:left">{html_text(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cell(value: object) -> str:
    side = "left" if isinstance(value, str) else "right"
    return f'<td style="text-align:{side}">{html_text(format_cell(value))}</td>'


def html_facts(facts: Mapping[str, object]) -> str:
    """Return names and values side by side as HTML, without empty values."""
    items = []
    for name, value in facts.items():
        if value in (None, ""):
            continue
        items.append(
            '<span style="white-space:nowrap;margin-right:1.5em"><span '
            f'style="opacity:.65">{html_text(name)}</span> '
            f"<b>{html_text(format_cell(value))}</b></span> "
        )
    return f"<p>{''.join(items)}</p>"


# Imports and groups -------------------------------------------------------------------------------


def import_extra(module: str, purpose: str, install: str) -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    module
        Its name; the part before the first dot is the package.
    purpose
        The feature that needs it, for the error message.
    install
        Arguments of pip that install it: ``-r`` and a requirements file, or a name.

    Raises
    ------
    ValueError
        If it is not installed, or does not load here.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ValueError(f"{purpose} needs the package {package}: pip install {install}") from None
    except (ImportError, OSError) as error:
        # Its library was built for another machine or version.
        raise ValueError(
            f"{purpose} needs the package {package}, which does not load here: {error}"
        ) from None


def import_object(path: str) -> object:
    """Import a function or class of the user's by its import path, ``package.module:name``.

    Modules in the current folder are found too, however the program was started.

    Raises
    ------
    ValueError
        If the path has another form, the module is not found or fails while it is imported, or it
        has no such name, or what has the name cannot be called.
    """
    module_name, separator, name = path.partition(":")
    parts = [*module_name.split("."), name]
    if not separator or not all(part.isidentifier() for part in parts):
        raise ValueError(f"{printable(path)}: expected an import path, package.module:name")
    # The console script finds what is beside itself instead of what is in the current folder.
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The module itself is missing, or another one that it imports.
        if f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{path}: no module {error.name}: expected one that is installed, or in {folder}"
            ) from None
        raise ValueError(f"{path}: {module_name} needs the module {error.name}") from None
    # A file of the user's may fail in any way; a script without a guard even ends the process.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        problem = printable(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path}: importing {module_name} failed: {problem}") from None
    found = getattr(module, name, None)
    if found is None:
        names = [other for other in vars(module) if not other.startswith("_")]
        usable = ", ".join(other for other in names if callable(getattr(module, other)))
        raise ValueError(
            f"{path}: {module_name} has no {name}: expected one of {printable(usable) or 'none'}"
        )
    if not callable(found):
        raise ValueError(
            f"{path}: {name} is of type {type(found).__name__}: expected a function or a class"
        )
    return found


def import_path(found: object) -> str:
    """Return the import path of a function or class, or that of the type of another object."""
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}:{named.__qualname__}"


def lazy_exports(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package that imports its names on first use.

    Importing one module of the package then does not load the others (PEP 562).

    Parameters
    ----------
    package
        Name of the package.
    homes
        Module of the package -> names that it defines.
    """
    module_of = {name: module for module, names in homes.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return get_attribute, lambda: sorted(module_of)


def join_pairs(pairs: Iterable[tuple[H, H]]) -> list[tuple[H, ...]]:
    """Return the groups of items that are connected by pairs, each in order of appearance."""
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
