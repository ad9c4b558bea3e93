"""Files that claim much in few bytes: each is refused, or read, in 2 s of processor time."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz.seeds import record_seeds

from src.records import RecordError, read_record
from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.leads import canonical_lead, is_other_lead, is_unnamed
from src.records.reading import list_records

LIMIT_S = 2.0
MUSE = "<RestingECG><Waveform><WaveformType>Rhythm</WaveformType>{}</Waveform></RestingECG>"
AECG = (
    '<AnnotatedECG><component><series><code code="RHYTHM"/><component><sequenceSet><component>'
    '<sequence><code code="MDC_ECG_LEAD_I"/><value><scale value="1" unit="uV"/><digits>{}</digits>'
    "</value></sequence></component></sequenceSet></component></series></component></AnnotatedECG>"
)


def cost_of(path: Path) -> tuple[float, str]:
    """Return the processor time of reading a file, and the error; empty if it was read."""
    began = time.process_time()
    try:
        [read_record(record) for record in list_records(path)]
    except RecordError as error:
        return time.process_time() - began, error.message
    return time.process_time() - began, ""


# Files --------------------------------------------------------------------------------------------


def segments(path: Path) -> None:
    (path.parent / "s.hea").write_text("s 1 100 1\ns.dat 16 100/mV 16 0 0 0 0 I\n")
    (path.parent / "s.dat").write_bytes(b"\1\0")
    path.write_text("r/100000 1 100 100000\n" + "s 1\n" * 100_000)


def segments_of_many_files(path: Path) -> None:
    lines = "".join(f"f{i}.dat 16 100/mV 16 0 0 0 0 I\n" for i in range(500))
    (path.parent / "s.hea").write_text(f"s 500 100 1\n{lines}")
    for i in range(500):
        (path.parent / f"f{i}.dat").write_bytes(b"\1\0")
    path.write_text("r/1000 500 100 1000\n" + "s 1\n" * 1000)


def dicom_head() -> bytes:
    raw = next(seed for seed in record_seeds() if seed.name == "dicom").files["r.dcm"]
    return raw[: raw.index(b"\x00\x54\x00\x01SQ")]


def dicom(content: bytes) -> Callable[[Path], int]:
    return lambda path: path.write_bytes(dicom_head() + content)


def sequence(tag: bytes, content: bytes) -> bytes:
    return tag + b"SQ\0\0" + struct.pack("<I", len(content)) + content


def item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def sparse_dicom(path: Path) -> None:
    with open(path, "wb") as stream:
        stream.write(bytes(128) + b"DICM")
        stream.truncate(2**29)


def xml(content: str) -> Callable[[Path], int]:
    return lambda path: path.write_text(content)


def attributes(n: int) -> str:
    return "<RestingECG " + " ".join(f"a{i}=''" for i in range(n)) + "/>"


def many_records(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", (10**7, 12, 1), "i1", chunks=(10_000, 12, 1), fillvalue=1)


def edf_of_gaps(path: Path) -> None:
    """Each data record of two samples begins a second later than it should."""
    n = 20_000
    fields = [
        (b"ECG", 16),
        (b"EDF Annotations", 16),
        *[(b"", 80)] * 2,
        (b"mV", 8),
        (b"", 8),
        *[(b"-1", 8)] * 2,
        *[(b"1", 8)] * 2,
        *[(b"-32768", 8)] * 2,
        *[(b"32767", 8)] * 2,
        *[(b"", 80)] * 2,
        (b"2", 8),
        (b"8", 8),
        *[(b"", 32)] * 2,
    ]
    table = b"".join(text.ljust(width) for text, width in fields)
    main = (
        b"0".ljust(8) + b" " * 160 + b"01.01.2001.00.00" + str(256 + len(table)).encode().ljust(8)
    )
    main += b"EDF+D".ljust(44) + str(n).encode().ljust(8) + b"1".ljust(8) + b"2".ljust(4)
    records = b"".join(
        b"\1\0\2\0" + f"+{2 * i}".encode().ljust(14, b"\x14") + b"\x14\0" for i in range(n)
    )
    path.write_bytes(main + table + records)


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "segments": ("r.hea", segments, "signal files or"),
    "segments of many files": ("r.hea", segments_of_many_files, "signal files or"),
    "age of spaces": (
        "r.hea",
        lambda path: path.write_text("r 1 100 1\nr.dat 16\n#Age: 1" + " " * 10**6 + "x\n"),
        "not in the folder",
    ),
    "zeros": ("r.dcm", dicom(bytes(2**23)), "reads to parse"),
    "sparse": ("r.dcm", sparse_dicom, "is sparse: 4096 of its 536870912 bytes"),
    "items": ("r.dcm", dicom(sequence(b"\0\x54\0\1", item(b"") * 10**6)), "reads to parse"),
    "channels": (
        "r.dcm",
        dicom(sequence(b"\0\x54\0\1", item(sequence(b"\x3a\0\0\2", item(b"") * 10**6)))),
        "reads to parse",
    ),
    "attributes": (
        "r.xml",
        xml(attributes(10**6)),
        "has a tag or comment of over",
    ),
    "short attributes": (
        "r.xml",
        xml(attributes(2000)),
        "has an element of 2000 attributes",
    ),
    "namespace": (
        "r.xml",
        xml(f'<RestingECG xmlns="{"u" * 10**5}">{"<a/>" * 190_000}</RestingECG>'),
        "has a namespace of 100000 characters",
    ),
    "default attribute": (
        "r.xml",
        xml(
            f'<!DOCTYPE RestingECG [<!ATTLIST a b CDATA "{"x" * 10**5}">]><RestingECG>'
            f"{'<a/>' * 190_000}</RestingECG>"
        ),
        "declares attributes",
    ),
    "leads of xml": ("r.xml", xml(MUSE.format("<LeadData/>" * 60_000)), "SampleBase"),
    "digits": ("r.xml", xml(AECG.format("1 " * 10**7 + "x")), "holds over 6000000 digits"),
    "records of hdf5": ("r.h5", many_records, "promises 10000000 records, the limit is 100000"),
    "gaps": ("r.edf", edf_of_gaps, "is EDF+D with 19999 gaps, the limit is 2000"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_claim_much_are_refused_in_time(tmp_path: Path, name: str) -> None:
    file, write, expected = FILES[name]
    write(tmp_path / file)
    took, message = cost_of(tmp_path / file)
    assert expected in message
    assert took < LIMIT_S


def test_texts_of_any_length_are_no_facts() -> None:
    began = time.process_time()
    for text in ("I" + " " * 10**7 + "x", "1" * 10**7, "(" * 10**7):
        assert millivolts_per_unit(text) is None
        assert canonical_lead(text) is None
        assert parse_age(text) is None
        assert parse_sex(text) is None
        assert not is_unnamed(text)
        assert not is_other_lead(text)
    assert parse_age(10**5000) is None
    assert time.process_time() - began < LIMIT_S


# Links --------------------------------------------------------------------------------------------


HEADER = "r 1 100 100\nr.dat {} 100/mV 16 0 0 0 0 I\n"


@pytest.mark.parametrize("fmt", ["16", "310"])
@pytest.mark.parametrize("real", ["in/real.txt", "other/real.txt"])
def test_a_link_to_a_header_lets_no_sample_file_lead_elsewhere(
    tmp_path: Path, fmt: str, real: str
) -> None:
    for name in ("in", "other", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret" / "key.bin").write_bytes(np.arange(200, dtype="<i2").tobytes())
    (tmp_path / real).write_text(HEADER.format(fmt))
    (tmp_path / "in" / "r.hea").symlink_to(tmp_path / real)
    (tmp_path / "in" / "r.dat").symlink_to(tmp_path / "secret" / "key.bin")
    with pytest.raises(RecordError, match=r"r\.dat is a link to another folder"):
        read_record(tmp_path / "in" / "r.hea")


@pytest.mark.parametrize("store", [".git/annex/objects", ".dvc/cache/files/md5"])
def test_links_into_one_content_store_are_followed(tmp_path: Path, store: str) -> None:
    for name, content in (("r.hea", HEADER.format("16").encode()), ("r.dat", b"\1\0" * 100)):
        folder = tmp_path / store / f"a{len(name)}{name[-1]}"
        folder.mkdir(parents=True)
        (folder / "content").write_bytes(content)
        (tmp_path / name).symlink_to(folder / "content")
    assert read_record(tmp_path / "r").n_samples == 100
