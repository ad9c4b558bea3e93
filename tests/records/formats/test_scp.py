from __future__ import annotations

import binascii
import struct
from pathlib import Path

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.records.reading import read_record
from src.records.record import RecordError

RNG = np.random.default_rng(53)
IDS = (1, 2, 3, 4, 5, 6, 7, 8)
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
SIGNAL = np.cumsum(RNG.integers(-30, 31, (8, 500)), axis=1) % 2000
SIGNAL[:, 200:300] = SIGNAL[:, 200:201]  # where nothing changes
SIGNAL[2, 400] = -9000  # a step that takes 16 bits


def code_of(value: int) -> str:
    """The bits of a number in the default table."""
    if value == 0:
        return "0"
    if abs(value) <= 8:
        return "1" * abs(value) + "0" + ("1" if value < 0 else "0")
    width = 8 if -128 <= value < 128 else 16
    return (
        "1111111110" if width == 8 else "1111111111"
    ) + f"{value & ((1 << width) - 1):0{width}b}"


def custom_code_of(value: int) -> str:
    """A table of three codes: 0, a number of 8 bits and one of 16."""
    if value == 0:
        return "0"
    return f"11{value & 0xFF:08b}" if -128 <= value < 128 else f"10{value & 0xFFFF:016b}"


# Of each code: bits of the prefix, bits in all, stay in this table, value, prefix with the bit read
# first lowest.
CODES = ((1, 1, 1, 0, 0b0), (2, 18, 1, 0, 0b01), (2, 10, 1, 0, 0b11))
CUSTOM = struct.pack("<HH", 1, len(CODES)) + b"".join(
    struct.pack("<BBBhI", *code) for code in CODES
)


def differences(values: np.ndarray, order: int) -> np.ndarray:
    return np.concatenate([values[:order], np.diff(values, order)]) if order else values


def pack(values: np.ndarray, coder: object) -> bytes:
    if coder is None:
        return values.astype("<i2").tobytes()
    bits = "".join(coder(int(value)) for value in values)  # type: ignore[operator]
    bits += "0" * (-len(bits) % 16)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def section(number: int, data: bytes) -> bytes:
    data += b"\0" * (len(data) % 2)
    head = struct.pack("<HIBB6s", number, len(data) + 16, 20, 20, b"SCPECG" if number == 0 else b"")
    return struct.pack("<H", binascii.crc_hqx(head + data, 0xFFFF)) + head + data


def write_scp(
    path: Path,
    signal: np.ndarray = SIGNAL,
    *,
    order: int = 0,
    coder: object = None,
    table: bytes | None = None,
    bimodal: int = 0,
    flags: int = 0b1000100,
    extra: int = 0,
    leave_out: int = 0,
) -> Path:
    n_leads, n_samples = signal.shape
    if coder is not None and table is None:
        table = struct.pack("<H", 19999)
    tags = b"".join(
        struct.pack("<BH", tag, len(value)) + value
        for tag, value in [
            (2, b"P-9\0"),
            (4, struct.pack("<HB", 61, 1)),
            (5, struct.pack("<HBB", 1950, 1, 2)),
            (8, b"\x02"),
            (25, struct.pack("<HBB", 2011, 5, 6)),
            (26, bytes([10, 0, 0])),
            (255, b""),
        ]
    )
    leads = bytes([n_leads, flags]) + b"".join(
        struct.pack("<IIB", 1, n_samples + extra, IDS[i]) for i in range(n_leads)
    )
    coded = [pack(differences(row, order), coder) for row in signal]
    rhythm = (
        struct.pack("<HHBB", 4880, 2000, order, bimodal)
        + struct.pack(f"<{n_leads}H", *map(len, coded))
        + b"".join(coded)
    )
    sections = {
        1: tags,
        2: table or b"",
        3: leads,
        4: b"",
        5: b"",
        6: rhythm,
        7: b"",
        8: b"",
        9: b"",
        10: b"",
        11: b"",
    }
    made = {
        number: section(number, data)
        for number, data in sections.items()
        if data and number != leave_out
    }
    at = 6 + 16 + 10 * 12
    pointers = struct.pack("<HII", 0, at - 6, 7)
    for number in sections:
        size = len(made.get(number, b""))
        pointers += struct.pack("<HII", number, size, at + 1 if size else 0)
        at += size
    body = struct.pack("<I", at) + section(0, pointers) + b"".join(made.values())
    path.write_bytes(struct.pack("<H", binascii.crc_hqx(body, 0xFFFF)) + body)
    return path


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(
    ("coder", "table"), [(None, None), (code_of, None), (custom_code_of, CUSTOM)]
)
def test_every_coding_gives_the_same_signal(
    tmp_path: Path, order: int, coder: object, table: bytes | None
) -> None:
    record = read_record(write_scp(tmp_path / "r.scp", order=order, coder=coder, table=table))
    np.testing.assert_allclose(record.signal[:8], SIGNAL * 0.00488, atol=1e-6)
    assert (record.fs, record.leads) == (500.0, (*EIGHT, "III", "aVR", "aVL", "aVF"))
    assert set(record.leads) == set(STANDARD_LEADS)
    np.testing.assert_allclose(record.signal[8], (SIGNAL[1] - SIGNAL[0]) * 0.00488, atol=1e-5)
    assert (record.age, record.sex, record.patient_id) == (61.0, "female", "P-9")
    assert record.flags == tuple(f"derived:{name}" for name in ("III", "aVR", "aVL", "aVF"))


def test_a_changed_byte_is_flagged(tmp_path: Path) -> None:
    path = write_scp(tmp_path / "r.SCP")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert read_record(path).flags[0] == "checksum_mismatch"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bimodal": 1}, r"is compressed bimodally: convert the file with BioSig"),
        ({"flags": 0b1000101}, "subtracts a reference beat"),
        ({"extra": 1}, "promises 501 samples in 1000 bytes"),
        ({"extra": 2**32 - 600}, "promises 4294967196 samples"),
        ({"extra": 20, "coder": code_of, "order": 1}, "is no Huffman code of the table"),
        ({"coder": code_of, "table": struct.pack("<H", 2)}, "switches between 2 Huffman tables"),
        (
            {"coder": code_of, "table": struct.pack("<HHBBBhI", 1, 1, 1, 1, 1, 0, 0)},
            "is no Huffman code of the table",
        ),
        (
            {"coder": code_of, "table": struct.pack("<HHBBBhI", 1, 1, 1, 1, 0, 0, 0)},
            "or leads to another table",
        ),
        ({"order": 3}, "has 4880 nV per unit, 2000 us per sample and differences of order 3"),
        ({"leave_out": 6}, r"has no section 6 \(rhythm data\)"),
        ({"leave_out": 3}, r"has no section 3 \(leads\)"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: dict[str, object], expected: str) -> None:
    path = write_scp(tmp_path / "r.scp", **options)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=expected):
        read_record(path)


def test_torn_and_foreign_files(tmp_path: Path) -> None:
    good = write_scp(tmp_path / "r.scp").read_bytes()
    for content in (b"", b"x" * 9, b"x" * 900, good[:100], good[:-300]):
        (tmp_path / "r.scp").write_bytes(content)
        with pytest.raises(RecordError, match=r"r\.scp"):
            read_record(tmp_path / "r.scp")


def test_a_lead_without_samples_is_absent(tmp_path: Path) -> None:
    path = write_scp(tmp_path / "r.scp", SIGNAL[:3])
    good = path.read_bytes()
    lengths = struct.pack("<3H", 1000, 1000, 1000)
    at = good.index(lengths)
    # The samples of V1 come last and stay as unused bytes.
    path.write_bytes(good[:at] + struct.pack("<3H", 1000, 1000, 0) + good[at + 6 :])
    record = read_record(path)
    np.testing.assert_allclose(record.signal[:2], SIGNAL[:2] * 0.00488, rtol=1e-5)
    assert "V1" not in record.leads and "no_samples:V1" in record.flags


def test_leads_that_begin_later_are_put_in_their_places(tmp_path: Path) -> None:
    path = write_scp(tmp_path / "r.scp", SIGNAL[2:4])
    good = path.read_bytes()
    second = struct.pack("<IIB", 1, 500, 2)
    path.write_bytes(good.replace(second, struct.pack("<IIB", 11, 510, 4)))
    record = read_record(path)
    assert record.signal.shape == (2, 510) and record.leads == ("I", "V2")
    np.testing.assert_allclose(record.signal[1, 10:], SIGNAL[3] * 0.00488, rtol=1e-5)
    assert np.isnan(record.signal[1, :10]).all() and np.isnan(record.signal[0, 500:]).all()
    path.write_bytes(good.replace(second, struct.pack("<IIB", 2**31, 2**31 + 499, 4)))
    with pytest.raises(RecordError, match="expected them to follow each other"):
        read_record(path)


def test_it_is_found_under_any_suffix(tmp_path: Path) -> None:
    path = write_scp(tmp_path / "r.scp").rename(tmp_path / "r.dat2")
    assert read_record(path).n_samples == 500
