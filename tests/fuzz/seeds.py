"""Tiny valid files of every format, which the fuzzer mutates: headers as the collections ship them,
generated samples.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pydicom
import scipy.io
import wfdb
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from src.config import STANDARD_LEADS

RNG = np.random.default_rng(71)
N = 120  # samples per lead

SUFFIXES = {
    "wfdb": ".hea",
    "mat": ".mat",
    "hdf5": "5",
    "edf": ".edf",
    "bdf": ".bdf",
    "dicom": ".dcm",
    "xml": ".xml",
    "scp": ".scp",
    "ishne": ".ecg",
    "npy": ".npy",
    "npz": ".npz",
    "parquet": ".parquet",
    "csv": ".csv",
    "tsv": ".tsv",
    "txt": ".txt",
    "asc": ".asc",
}
"""Target -> the end of the names of its records."""


@dataclass(frozen=True)
class Seed:
    """Files of one record by name; `entry` is the one to read."""

    name: str
    entry: str
    files: dict[str, bytes]


def counts(n_leads: int, n: int = N) -> NDArray[np.int16]:
    """Return ADC counts (n, n_leads) that look a little like an ECG."""
    wave = 400 * np.sin(np.arange(n)[:, None] / 9 + np.arange(n_leads))
    return (wave + RNG.normal(0, 40, (n, n_leads))).astype(np.int16)


def _line(
    file: str, storage: str, gain: str, adc: NDArray[np.int16], lead: str, zero: int = 0
) -> str:
    return (
        f"{file} {storage} {gain} 16 {zero} {adc[0]} {int(adc.sum(dtype=np.int64)) & 0xFFFF} "
        f"0 {lead}"
    )


def _wfdb(
    name: str,
    record: str,
    file: str,
    storage: str,
    gain: str,
    adc: NDArray[np.int16],
    raw: bytes,
    comments: str = "",
    leads: tuple[str, ...] = STANDARD_LEADS,
) -> Seed:
    lines = [
        record,
        *(_line(file, storage, gain, adc[:, i], leads[i]) for i in range(adc.shape[1])),
    ]
    return Seed(name, "r.hea", {"r.hea": ("\n".join(lines) + "\n" + comments).encode(), file: raw})


def _encode_212(values: NDArray[np.int16]) -> bytes:
    v = values.ravel().astype(np.int64) & 0xFFF
    pairs = np.stack([v[0::2] & 0xFF, (v[0::2] >> 8) | (v[1::2] >> 8) << 4, v[1::2] & 0xFF], axis=1)
    return pairs.astype(np.uint8).tobytes()


def _mat4_header(n_leads: int) -> bytes:
    return np.array([30, n_leads, N, 0, 4], "<i4").tobytes() + b"val\0"


def wfdb_seeds() -> list[Seed]:
    """Headers as PTB-XL, the Challenges, MIT-BIH and CPSC 2021 ship them, and the rarer storage
    formats.
    """
    twelve, two, one = counts(12), counts(2), counts(1)
    raw = twelve.astype("<i2").tobytes()
    dx = "#Age: 74\n#Sex: Male\n#Dx: 59118001,164889003\n#Rx: Unknown\n"
    seeds = [
        _wfdb("ptbxl", f"r 12 100 {N}", "r.dat", "16", "1000.0(0)/mV", twelve, raw),
        _wfdb(
            "challenge2021",
            f"r.mat 12 500 {N} 12-May-2020 12:33:59",
            "r.mat",
            "16+24",
            "1000/mv",
            twelve,
            _mat4_header(12) + raw,
            dx,
        ),
        _wfdb(
            "mitdb",
            f"r 2 360 {N}",
            "r.dat",
            "212",
            "200",
            two,
            _encode_212(two),
            "# 69 M 1085 1629 x1\n",
            ("MLII", "V5"),
        ),
        _wfdb(
            "cpsc2021",
            f"r 2 200 {N}",
            "r.dat",
            "16",
            "111074.41673370876(-585029)/mV",
            two,
            two.astype("<i2").tobytes(),
        ),
        _wfdb(
            "big_endian",
            f"r 1 300 {N} 11:09:11 1/09/2000 ",
            "r.dat",
            "61",
            "1000/uV",
            one,
            one.astype(">i2").tobytes(),
        ),
        _wfdb("wide", f"r 2 300 {N}", "r.dat", "32", "1e3/V", two, two.astype("<i4").tobytes()),
        _wfdb(
            "frames",
            f"r 2 100/200 {N // 2}",
            "r.dat",
            "16x2",
            "1000/mV",
            two,
            two.reshape(-1, 2, 2).swapaxes(1, 2).astype("<i2").tobytes(),
        ),
    ]
    return [*seeds, *_package_seeds(two), *_segment_seeds(two)]


def _package_seeds(adc: NDArray[np.int16]) -> list[Seed]:
    """Storage formats as the wfdb package writes them."""
    seeds = []
    for storage in ("24", "80", "508", "516", "524"):
        small = (adc // (16 if storage in ("80", "508") else 1)).astype(np.int64)
        files = _written(
            lambda folder, small=small, storage=storage: wfdb.wrsamp(
                "r",
                100,
                ["mV"] * 2,
                ["I", "II"],
                d_signal=small,
                fmt=[storage] * 2,
                adc_gain=[100.0] * 2,
                baseline=[0] * 2,
                write_dir=folder,
            )
        )
        seeds.append(Seed(f"format{storage}", "r.hea", files))
    return seeds


def _written(write: object) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write(folder)  # type: ignore[operator]
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _segment_seeds(adc: NDArray[np.int16]) -> list[Seed]:
    half = N // 2
    files = {}
    for name, part in (("s1", adc[:half]), ("s2", adc[half:])):
        lines = [
            f"{name} 2 100 {half}",
            *(
                _line(f"{name}.dat", "16", "100/mV", part[:, i], lead)
                for i, lead in enumerate(("II", "V1"))
            ),
        ]
        files |= {
            f"{name}.hea": "\n".join(lines).encode(),
            f"{name}.dat": part.astype("<i2").tobytes(),
        }
    layout = "layout 2 100 0\n~ 0 100/mV 16 0 0 0 0 II\n~ 0 100/mV 16 0 0 0 0 V1\n"
    fixed = f"r/3 2 100 {N + 10}\ns1 {half}\n~ 10\ns2 {half}\n"
    variable = f"r/4 2 100 {N + 10}\nlayout 0\ns1 {half}\n~ 10\ns2 {half}\n"
    return [
        Seed("segments", "r.hea", {"r.hea": fixed.encode(), **files}),
        Seed(
            "segments_layout",
            "r.hea",
            {"r.hea": variable.encode(), "layout.hea": layout.encode(), **files},
        ),
    ]


def mat_seeds() -> list[Seed]:
    """Bare MAT files: a matrix in each version, the structure of CPSC 2018, cells and objects."""
    adc = counts(12).T
    contents: dict[str, tuple[dict[str, object], dict[str, object]]] = {
        "mat4": ({"val": adc, "fs": 500.0, "gain": 1000.0}, {"format": "4"}),
        "mat5": (
            {"val": adc, "fs": 500.0, "gain": 1000.0, "leads": np.array(STANDARD_LEADS, object)},
            {},
        ),
        "mat5_deflated": ({"val": adc, "fs": 500.0, "gain": 1000.0}, {"do_compression": True}),
        "mat_struct": ({"ECG": {"sex": "Male", "age": 74, "data": adc / 1000}}, {}),
        "mat_struct_deflated": (
            {"ECG": {"sex": "Male", "age": 74, "data": adc / 1000}},
            {"do_compression": True},
        ),
        "mat_cell": ({"val": np.array([[adc], ["x"]], object), "fs": 500.0, "gain": 1.0}, {}),
        "mat_stated": (
            {
                "ECG": {
                    "data": adc + 5,
                    "leads": np.array(STANDARD_LEADS, object),
                    "header": {"fs": "500 Hz", "gain": np.full(12, 1000.0), "baseline": 5},
                },
                "units": np.array(["mV"] * 12, object),
            },
            {},
        ),
        "mat_vectors": (
            {
                "rec": {"II": adc[1], "V1": adc[6], "RESP": adc[0]},
                "siginfo": [{"Units": "uV", "Gain": 1.0}] * 3,
                "sampling_interval": "2 ms",
                "empty": np.empty((0, 0)),
            },
            {},
        ),
        "mat_cells": (
            {
                "X": np.array([adc[:2], adc[:3, :110], None], object)[:2],
                "record_id": np.array(["a", "b"], object),
                "fs": np.array([250.0, 500.0]),
                "gain": 1000.0,
            },
            {"do_compression": True},
        ),
        "mat_structures": (
            {
                "recs": np.array(
                    [(adc / 1000, 7, 50.0), (adc / 500, 8, 60.0)],
                    [("data", object), ("id", object), ("age", object)],
                ),
                "fs": 500.0,
            },
            {},
        ),
        "mat_stack": ({"val": np.stack([adc, adc]), "fs": 500.0, "gain": 1000.0}, {}),
        "mat_leads": ({"II": adc, "V1": adc, "id": np.arange(12), "fs": 500.0, "gain": 1.0}, {}),
        "mat_nested": (
            {"val": {"a": {"b": {"c": adc}}}, "ecg": np.zeros((2, 3, 4)), "fs": np.nan},
            {},
        ),
    }
    seeds = []
    for name, (variables, options) in contents.items():
        stream = io.BytesIO()
        scipy.io.savemat(stream, variables, **options)  # type: ignore[arg-type]
        seeds.append(Seed(name, "r.mat", {"r.mat": stream.getvalue()}))

    def write(file: h5py.File) -> None:
        file["val"] = adc.T
        file["fs"], file["gain"] = np.array([[500.0]]), np.array([[1000.0]])
        group = file.create_group("ECG")
        group["data"], group["age"] = adc.T / 1000, np.array([[74.0]])
        group["sex"] = np.array([[ord(c)] for c in "Male"], np.uint16)
        group["sex"].attrs["MATLAB_class"] = np.bytes_("char")
        group["gain"] = np.zeros(2, np.uint64)
        group["gain"].attrs["MATLAB_empty"] = np.uint8(1)
        refs = file.create_group("#refs#")
        for number, lead in enumerate(STANDARD_LEADS):
            refs[f"{number}"] = np.array([[ord(c)] for c in lead], np.uint16)
            refs[f"{number}"].attrs["MATLAB_class"] = np.bytes_("char")
        references = [[refs[f"{number}"].ref] for number in range(12)]
        file.create_dataset("leads", data=references, dtype=h5py.ref_dtype)

    def many(file: h5py.File) -> None:
        refs = file.create_group("#refs#")
        refs["a"], refs["b"] = adc.T / 1000, adc.T[:110] / 1000
        for name, group in (("X", file), ("data", file.create_group("recs"))):
            references = [[refs[key].ref] for key in "ab"]
            group.create_dataset(name, data=references, dtype=h5py.ref_dtype)
        file["fs"], file["id"] = np.array([[500.0]]), np.array([[7.0], [8.0]])

    mat73 = [
        _hdf5(name, "r.mat", fill, userblock_size=512)
        for name, fill in (("mat73", write), ("mat73_many", many))
    ]
    return [*seeds, *mat73]


def _hdf5(name: str, entry: str, write: object, **options: object) -> Seed:
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        write(file)  # type: ignore[operator]
    return Seed(name, entry, {entry: stream.getvalue()})


def hdf5_seeds() -> list[Seed]:
    """One record as SPH has it, many as CODE-15% has them, compressed and named ones, links and
    strange types.
    """
    many = np.moveaxis(np.stack([counts(12) for _ in range(3)]), 1, 1) / np.float32(400)

    def names(file: h5py.File) -> None:
        file.create_dataset(
            "tracings", data=many, chunks=(2, N, 12), compression="gzip", fletcher32=True
        )
        file["exam_id"] = np.array([11, 12, 13])
        file["leads"] = np.array(STANDARD_LEADS, dtype=h5py.string_dtype())
        file["tracings"].attrs["fs"], file["tracings"].attrs["units"] = 400.0, "mV"

    def stated(file: h5py.File) -> None:
        file["recording/signals"] = np.moveaxis(many, 1, 2) * 1000
        file["recording"].attrs.update({"leads": ", ".join(STANDARD_LEADS), "gain": "1000/mV"})
        file["recording/fs"] = np.array(["250 Hz", "0.5 kHz", "400"], h5py.string_dtype())
        file["header/baseline"] = np.zeros((3, 12))
        file["header"].attrs["units"] = np.array(["mV"] * 12, h5py.string_dtype())
        file["exam_id"] = np.array(["a", "b", "c"], h5py.string_dtype())

    def links(file: h5py.File) -> None:
        file["ecg"] = counts(12).T / 1000
        file["other"] = h5py.SoftLink("/ecg")
        file["loop"] = h5py.SoftLink("/loop")
        file["self"] = h5py.SoftLink("/")

    def outside(file: h5py.File) -> None:
        file["ecg"] = counts(12).T / 1000
        file["fs"] = h5py.SoftLink("/out/fs")
        file["out"] = h5py.ExternalLink("other.h5", "/")
        file.create_dataset("leads", (12,), "S20", external=[("names", 0, 240)])

    def huge(file: h5py.File) -> None:
        file.create_dataset("ecg", shape=(12, 2**40), dtype="f4", chunks=(1, 1024))
        file.create_dataset("fs", shape=(1,), dtype="f8")

    return [
        _hdf5(
            "h5_one",
            "r.h5",
            lambda file: file.create_dataset("ecg", data=(counts(12).T / 1000).astype(np.float16)),
        ),
        _hdf5("h5_many", "r.hdf5", lambda file: file.create_dataset("tracings", data=many)),
        _hdf5("h5_named", "r.hdf5", names),
        _hdf5("h5_stated", "r.h5", stated),
        _hdf5("h5_links", "r.h5", links),
        _hdf5("h5_outside", "r.h5", outside),
        _hdf5("h5_huge", "r.h5", huge),
    ]


def edf_seeds() -> list[Seed]:
    """A plain EDF file, EDF+D with the time of each data record, and both in 24 bits."""
    return [
        Seed("edf", "r.edf", {"r.edf": _edf("")}),
        Seed("edf_plus", "r.edf", {"r.edf": _edf("EDF+D")}),
        Seed("bdf", "r.bdf", {"r.bdf": to_bdf(_edf(""), b"24BIT")}),
        Seed("bdf_plus", "r.bdf", {"r.bdf": to_bdf(_edf("EDF+D"), b"BDF+D")}),
    ]


def to_bdf(raw: bytes, kind: bytes) -> bytes:
    """Return an EDF file with its samples in 24 bits; the times of EDF+ become those of BDF+."""
    n_bytes = int(raw[184:192])
    head = b"\xffBIOSEMI" + raw[8:192] + kind.ljust(44) + raw[236:n_bytes]
    head = head.replace(b"EDF Annotations ", b"BDF Annotations ")
    samples = np.frombuffer(raw[n_bytes:], "<i2").reshape(int(raw[236:244]), -1)
    wide = samples.astype("<i4").view(np.uint8).reshape(*samples.shape, 4)[..., :3].copy()
    if kind == b"BDF+D":
        # The text of a data record is at the beginning of its bytes.
        times = samples[:, -10:].copy().view(np.uint8)
        wide[:, -10:] = np.pad(times, ((0, 0), (0, 10))).reshape(-1, 10, 3)
    return head + wide.tobytes()


def _edf(plus: str) -> bytes:
    n_records, n = 4, N // 4
    adc = counts(2).reshape(n_records, n, 2)
    columns = [
        ("ECG I", "uV", -3276, 3276, adc[:, :, 0]),
        ("EKG II", "mV", -3.2, 3.2, adc[:, :, 1]),
    ]
    if plus:
        times = b"".join(f"+{i}\x14\x14\0".encode().ljust(20, b"\0") for i in range(n_records))
        columns.append(
            ("EDF Annotations", "", -1, 1, np.frombuffer(times, "<i2").reshape(n_records, 10))
        )
    main = [
        ("0", 8),
        ("P1 F 02-MAY-1951 X", 80),
        ("Startdate 02-MAR-2002 X X X", 80),
        ("02.03.02", 8),
        ("10.11.12", 8),
        (256 * (len(columns) + 1), 8),
        (plus, 44),
        (n_records, 8),
        (1, 8),
        (len(columns), 4),
    ]
    rows = [
        (label, "", unit, low, high, -32768, 32767, "HP:0.1Hz", values.shape[1], "")
        for label, unit, low, high, values in columns
    ]
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    head = b"".join(str(text).encode().ljust(width) for text, width in main)
    head += b"".join(
        str(row[i]).encode().ljust(width) for i, width in enumerate(widths) for row in rows
    )
    return head + np.hstack([values for *_, values in columns]).astype("<i2").tobytes()


def dicom_seeds() -> list[Seed]:
    """A 12-lead waveform of two leads and a channel that is no voltage."""

    def item(**fields: object) -> Dataset:
        made = Dataset()
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    def channel(value: str, unit: str) -> Dataset:
        source = item(CodeValue=value, CodingSchemeDesignator="MDC", CodeMeaning="Lead")
        return item(
            ChannelSourceSequence=[source],
            ChannelSensitivity=2.5,
            ChannelBaseline=0.0,
            ChannelSensitivityCorrectionFactor=1,
            ChannelSensitivityUnitsSequence=[
                item(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning="x")
            ],
            WaveformBitsStored=16,
        )

    adc = counts(3)
    group = item(
        NumberOfWaveformSamples=N,
        NumberOfWaveformChannels=3,
        SamplingFrequency=500.0,
        WaveformBitsAllocated=16,
        WaveformSampleInterpretation="SS",
        ChannelDefinitionSequence=[
            channel("2:1", "uV"),
            channel("2:2", "mV"),
            channel("x", "mm[Hg]"),
        ],
        WaveformPaddingValue=b"\0\x80",
        WaveformData=adc.astype("<i2").tobytes(),
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.9.1.1",
        "1.2.3",
    )
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = FileDataset("r.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID, dataset.PatientSex, dataset.PatientAge, dataset.Modality = (
        "P3",
        "F",
        "018M",
        "ECG",
    )
    dataset.WaveformSequence = [group]
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return [Seed("dicom", "r.dcm", {"r.dcm": stream.getvalue()})]


def xml_seeds() -> list[Seed]:
    """Exports of MUSE, HL7 aECG, Philips, CardioSoft and Mortara."""
    leads = "".join(
        f"<LeadData><LeadSampleCountTotal>{N}</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit>"
        f"<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{lead}</LeadID><LeadSampleSize>2</LeadSampleSize>"
        f"<LeadOff>FALSE</LeadOff><WaveFormData>{base64.b64encode(counts(1).astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
        for lead in ("I", "II", "V1")
    )
    muse = (
        '<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE RestingECG SYSTEM '
        '"restecg.dtd"><RestingECG><PatientDemographics>'
        "<PatientID>P7</PatientID><PatientAge>55</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender></PatientDemographics>"
        "<Diagnosis><DiagnosisStatement><StmtText>Sinus "
        "rhythm</StmtText></DiagnosisStatement></Diagnosis><Waveform>"
        f"<WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>{leads}</Waveform></RestingECG>"
    )
    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead}"/><value><origin value="0" '
        'unit="uV"/><scale value="5" unit="uV"/>'
        f"<digits>{' '.join(map(str, counts(1).ravel()))}</digits></value></sequence></component>"
        for lead in ("I", "II")
    )
    aecg = (
        '<?xml version="1.0"?><AnnotatedECG xmlns="urn:hl7-org:v3"><effectiveTime><low '
        'value="20020302"/></effectiveTime><component>'
        '<series><code code="RHYTHM"/><component><sequenceSet><component><sequence><code '
        'code="TIME_ABSOLUTE"/><value>'
        '<head value="20020302101112"/><increment value="0.002" '
        'unit="s"/></value></sequence></component>'
        f"{sequences}</sequenceSet></component></series></component></AnnotatedECG>"
    )
    return [
        Seed("muse", "r.xml", {"r.xml": muse.encode("latin-1")}),
        Seed("aecg", "r.xml", {"r.xml": aecg.encode()}),
        *philips_seeds(),
        *cardiosoft_seeds(),
        Seed("mortara", "r.xml", {"r.xml": mortara_xml(counts(2).T.astype("<i2")).encode()}),
    ]


def cardiosoft_seeds() -> list[Seed]:
    """A resting recording, and a stress test with strips and full disclosure."""
    adc = counts(3)
    strip = cardiosoft_strip(adc.T, ("I", "II", "V1"))
    sampled = (
        "<FullDisclosure><NumberOfChannels>3</NumberOfChannels>\n"
        '<SampleRate units="Hz">500</SampleRate><Resolution units="uVperLsb">5</Resolution>\n'
        f"<LeadOrder>I,II,V1</LeadOrder>\n<FullDisclosureData>{','.join(map(str, adc.ravel()))}"
        "</FullDisclosureData></FullDisclosure>\n"
    )
    inner = cardiosoft_strip(adc.T[:, :50], ("I", "II", "V1"), "Strip")
    texts = {
        "cardiosoft": cardiosoft_xml(strip),
        "cardiosoft_stress": cardiosoft_xml(f"<StripData>{inner}{inner}</StripData>{sampled}"),
    }
    return [Seed(name, "r.xml", {"r.xml": text.encode("latin-1")}) for name, text in texts.items()]


def cardiosoft_strip(
    rows: NDArray[np.int16], leads: tuple[str, ...], tag: str = "StripData"
) -> str:
    """Return a strip with its facts and the numbers of each lead."""
    waves = "".join(
        f'<WaveformData lead="{lead}">\n{",".join(map(str, row))}</WaveformData>\n'
        for lead, row in zip(leads, rows, strict=True)
    )
    return (
        f"<{tag}><NumberOfLeads>{len(leads)}</NumberOfLeads>\n"
        f'<SampleRate units="Hz">500</SampleRate>\n<ChannelSampleCountTotal units="Samples">'
        f"{len(rows[0])}</ChannelSampleCountTotal>\n"
        f'<Resolution units="uVperLsb">5</Resolution>\n{waves}</{tag}>\n'
    )


def cardiosoft_xml(strips: str) -> str:
    """Return a CardioSoft export with the strips given and a patient."""
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><CardiologyXML>\n'
        "<ObservationDateTime><Year>2014</Year><Month>5</Month><Day>2</Day></ObservationDateTime>\n"
        '<PatientInfo><PID>P-5</PID><Name>M\u00fcller</Name><Age units="years">61</Age>\n'
        "<Gender>FEMALE</Gender></PatientInfo>\n<Interpretation><Diagnosis>"
        "<DiagnosisText>Sinus rhythm</DiagnosisText></Diagnosis></Interpretation>\n"
        f"<RestingECGMeasurements><MedianSamples>"
        '<WaveformData lead="I">1,2</WaveformData></MedianSamples></RestingECGMeasurements>\n'
        f"{strips}</CardiologyXML>"
    )


def mortara_xml(rows: NDArray[np.int16], facts: str = 'OFFSET="0" BITS="16"') -> str:
    """Return a Mortara export of channels I, II, ... with the facts given."""
    channels = "".join(
        f'<CHANNEL {facts} FORMAT="SIGNED" UNITS_PER_MV="200" DURATION="{len(row)}"\n'
        f'SAMPLE_FREQ="500" NAME="{name}" ENCODING="BASE64"\n'
        f'DATA="{base64.b64encode(row.tobytes()).decode()}"/>\n'
        for name, row in zip(STANDARD_LEADS, rows, strict=False)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ECG ACQUISITION_TIME="20231201120000">\n'
        '<SUBJECT LAST_NAME="A" ID="P-6" GENDER="MALE" DOB="19900515"/>\n'
        f'<SOURCE TYPE="STD-12" MANUFACTURER="MORTARA"/>\n{channels}'
        '<TYPICAL_CYCLE><TYPICAL_CYCLE_CHANNEL NAME="I" DATA="AAAA"/></TYPICAL_CYCLE></ECG>'
    )


PHILIPS_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1")


def philips_seeds() -> list[Seed]:
    """Philips exports: compressed, in base64 and as numbers, in the versions' own places."""
    adc = counts(7).T.astype(np.int64)
    listed = f'numberofleads="7" leadlabels="{" ".join(PHILIPS_LEADS)}" samplespersecond="500"'
    named = f'{listed} resolution="5" durationperchannel="{2 * N}"'
    numbers = " ".join(map(str, adc.ravel()))
    coded = base64.b64encode(adc.astype("<i2").tobytes()).decode()
    packed = base64.b64encode(b"".join(map(pack_xli, adc))).decode()
    old = f'compressflag="True" compressmethod="XLI" durationperchannel="{2 * N}"'
    texts = {
        "philips": philips_xml(f'dataencoding="Base64" compression="XLI" {named}', packed),
        "philips_103": philips_xml(f'dataencoding="Base64" {old}', packed, "1.03"),
        "philips_base64": philips_xml(f'dataencoding="Base64" {named}', coded),
        "philips_plain": philips_xml(f'dataencoding="Plain" {named}', numbers),
    }
    return [Seed(name, "r.xml", {"r.xml": text.encode()}) for name, text in texts.items()]


def philips_xml(attributes: str, samples: str, version: str = "1.04") -> str:
    """Return a Philips export, of which the attributes and text of its samples are given."""
    statement = (
        "<statement><statementcode/><leftstatement>Sinus bradycardia</leftstatement></statement>"
        if version == "1.03"
        else '<codedstatement deleted="True"><unparsedstatement code="AF"/></codedstatement>'
        '<codedstatement deleted="False"><unparsedstatement code="SR"/></codedstatement>'
    )
    age = "<years>50</years>" if version == "1.03" else "<dateofbirth>1950-01-20</dateofbirth>"
    return (
        '<?xml version="1.0"?><restingecgdata xmlns="http://www3.medical.philips.com">\n'
        f"<documentinfo><documentversion>{version}</documentversion></documentinfo>\n"
        '<dataacquisition date="2010-01-19"><signalcharacteristics>'
        "<samplingrate>500</samplingrate><signalresolution>5</signalresolution>"
        "<acquisitiontype>STD-12</acquisitiontype><numberchannelsallocated>7"
        "</numberchannelsallocated></signalcharacteristics></dataacquisition>\n<patient>"
        "<generalpatientdata><patientid>P-3</patientid>"
        f"<age>{age}</age><sex>Male</sex></generalpatientdata></patient><interpretations>"
        f'<interpretation date="2010-01-19">{statement}</interpretation></interpretations>'
        f"<waveforms><parsedwaveforms {attributes}>{samples}</parsedwaveforms></waveforms>\n"
        "</restingecgdata>"
    )


def pack_xli(samples: NDArray[np.int64]) -> bytes:
    """Return the chunk of a lead: second differences of the samples, packed by LZW."""
    errors = -np.diff(samples, 2)
    stored = np.concatenate([samples[:2], errors[1:] + 64, [64]])
    values = stored.astype(np.int16).view(np.uint16)
    packed = pack_lzw(bytes((values >> 8).tolist()) + bytes((values & 255).tolist()))
    return struct.pack("<iHh", len(packed), 1, int(errors[0])) + packed


def pack_lzw(content: bytes) -> bytes:
    """Return bytes as LZW codes of 10 bits, ended by the code 1023."""
    table = {bytes([value]): value for value in range(256)}
    codes, seen = [], b""
    for value in content:
        longer = seen + bytes([value])
        if longer not in table:
            codes.append(table[seen])
            if len(table) < 1023:
                table[longer] = len(table)
            longer = bytes([value])
        seen = longer
    bits = "".join(f"{code:010b}" for code in [*codes, table[seen], 1023])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def scp_seeds() -> list[Seed]:
    """Two leads, plain and coded by the standard's Huffman table as differences."""
    return [
        Seed("scp", "r.scp", {"r.scp": _scp(False)}),
        Seed("scp_coded", "r.scp", {"r.scp": _scp(True)}),
    ]


def _scp(coded: bool) -> bytes:
    adc = counts(2).T.astype(int)
    rows = [
        _scp_bits(np.diff(row, prepend=0)) if coded else row.astype("<i2").tobytes() for row in adc
    ]
    leads = bytes([2, 0b1000100]) + b"".join(struct.pack("<IIB", 1, N, i) for i in (1, 2))
    rhythm = struct.pack("<HHBB2H", 4880, 2000, int(coded), 0, *map(len, rows)) + b"".join(rows)
    return scp_of({3: leads, 6: rhythm})


def scp_of(given: dict[int, bytes]) -> bytes:
    """Return an SCP-ECG file of the sections given, a patient and the default Huffman table."""
    patient = b"".join(
        struct.pack("<BH", tag, len(value)) + value
        for tag, value in [(2, b"P-9\0"), (8, b"\x02"), (255, b"")]
    )
    contents = {1: patient, 2: struct.pack("<H", 19999), **given}
    sections = {number: _scp_section(number, contents[number]) for number in sorted(contents)}
    at = 6 + 16 + 10 * len(sections)
    pointers = b""
    for number, section in sections.items():
        pointers += struct.pack("<HII", number, len(section), at + 1)
        at += len(section)
    body = struct.pack("<I", at) + _scp_section(0, pointers) + b"".join(sections.values())
    return struct.pack("<H", binascii.crc_hqx(body, 0xFFFF)) + body


def _scp_section(number: int, data: bytes) -> bytes:
    data += b"\0" * (len(data) % 2)
    head = struct.pack("<HIBB6s", number, len(data) + 16, 20, 20, b"SCPECG" if number == 0 else b"")
    return struct.pack("<H", binascii.crc_hqx(head + data, 0xFFFF)) + head + data


def _scp_bits(values: NDArray[np.int64]) -> bytes:
    """Return each value as the 16-bit escape of the default table."""
    bits = "".join(f"1111111111{int(value) & 0xFFFF:016b}" for value in values)
    bits += "0" * (-len(bits) % 16)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def ishne_seeds() -> list[Seed]:
    """Two leads of a Holter recorder, and a header that states little."""
    adc = counts(2).astype("<i2").tobytes()
    return [
        Seed("ishne", "r.ecg", {"r.ecg": ishne(2, N, 500, (1000, 2500)) + adc}),
        Seed("ishne_silent", "r.ecg", {"r.ecg": ishne(0, N, 0, ()) + adc}),
    ]


def ishne(
    n_leads: int, n: int, fs: int, nanovolts: tuple[int, ...], names: object = (6, 11)
) -> bytes:
    """Return the header of an ISHNE recording with a right checksum."""

    def twelve(*numbers: int) -> tuple[int, ...]:
        return (*numbers, *[-9] * (12 - len(numbers)))

    fixed = struct.pack("<iiiih", 8, n, 522, 530, 1) + b"A".ljust(40, b"\0") + bytes(40)
    fixed += b"P-9".ljust(20, b"\0") + struct.pack("<hh", 2, 0)
    fixed += struct.pack("<12h", 8, 5, 1953, 12, 11, 2003, 0, 0, 0, 10, 11, 12)
    leads = (twelve(*names[:n_leads]), twelve(*[1] * n_leads), twelve(*nanovolts))  # type: ignore[index]
    fixed += struct.pack("<h36h", n_leads, *[number for row in leads for number in row])
    fixed += struct.pack("<h40sh", 0, b"digital", fs) + bytes(80 + 80 + 88)
    block = fixed + b"remarks."
    return b"ISHNE1.0" + struct.pack("<H", binascii.crc_hqx(block, 0xFFFF)) + block


def array_seeds() -> list[Seed]:
    """Arrays as NumPy stores them, and as text with and without names, times and facts."""
    adc = counts(12) / 1000
    seeds = []
    for name, array in {
        "npy": adc.T.astype(np.float32),
        "npy_fortran": np.asfortranarray(adc),
        "npy_flat": adc[:, 0],
        "npy_counts": counts(2),
        "npy_many": np.stack([adc, adc]),
        "npy_index": np.stack([adc, adc])[..., :1],
    }.items():
        stream = io.BytesIO()
        np.save(stream, array)
        files = {"r.npy": stream.getvalue()}
        if name == "npy_index":
            files["r.csv"] = b"age,record_id\n50,a\n51,b\n"
        seeds.append(Seed(name, "r.npy", files))

    for name, arrays in {
        "npz": {"fs": 500, "signal": adc, "leads": np.array(STANDARD_LEADS), "unit": "mV"},
        "npz_many": {"X": np.stack([adc, adc]), "ecg_id": np.array([1, 2]), "fs": 500},
    }.items():
        for pack in (np.savez, np.savez_compressed):
            stream = io.BytesIO()
            pack(stream, **arrays)
            seeds.append(Seed(f"{name}_{pack.__name__}", "r.npz", {"r.npz": stream.getvalue()}))

    def rows(separator: str, columns: NDArray[np.float64], start: object = None) -> str:
        lines = []
        for i, row in enumerate(columns):
            first = [] if start is None else [f"{i * 0.002:.3f}"]
            lines.append(separator.join([*first, *(f"{value:.3f}" for value in row)]))
        return "\n".join(lines) + "\n"

    texts = {
        "r.csv": ",".join(STANDARD_LEADS) + "\n" + rows(",", adc),
        "r.tsv": "time (s)\tII [mV]\tRESP\n" + rows("\t", adc[:, :2], 0),
        "r.txt": "# sampling rate: 250 Hz\n# unit: mV\n" + rows(" ", adc[:, :2]),
        "r.asc": rows(";", adc[:, :3]).replace(".", ","),
    }
    apple = "Name,A\nSample Rate,512.3 hertz\n\nLead,Lead I\nUnit,\u00b5V\n\n"
    texts_of_wearables = apple + rows(",", 1000 * adc[:, :1]).replace(".", ",")
    seeds += [Seed(f"text_{name[2:]}", name, {name: text.encode()}) for name, text in texts.items()]
    german = (
        'Ger\u00e4t,"Watch6,1"\nMessrate,"512 Hertz"\n\nAbleitung,"Ableitung I"\nEinheit,mV\n\n'
    )
    german += "".join(f'"{value:.3f}"\n'.replace(".", ",") for value in adc[:, 0])
    shimmer = "sep=\t\nTimestamp\tECG_LL-RA\nCAL\tCAL\nms\tmV\n" + rows("\t", adc[:, :1], 0)
    dates = "Time,I (mV)\n" + rows(",", adc[:, :1], 0).replace("0.", "1/2/2024 10:00:0.")
    more = {"apple": texts_of_wearables, "german": german, "shimmer": shimmer, "dates": dates}
    texts = [Seed(f"text_{name}", "r.csv", {"r.csv": text.encode()}) for name, text in more.items()]
    return [*seeds, *texts]


def parquet_bytes(columns: dict[str, object], stated: dict[str, str], **options: object) -> bytes:
    """Return a Parquet file; only its frame where pyarrow is not installed, which is refused."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        return b"PAR1\x06signal\x06\0\0\0PAR1"
    stream = io.BytesIO()
    table = pyarrow.table(columns).replace_schema_metadata(stated)
    parquet.write_table(table, stream, **options)
    return stream.getvalue()


def parquet_seeds() -> list[Seed]:
    """Rows of records as our export writes them, with all columns, and with what is needed."""
    signal = [(counts(2).T / 1000).tolist() for _ in range(3)]
    ids = {"key": ["d__a", "d__b", "e__a"], "record_id": ["a", "b", "a"], "signal": signal}
    more = {"fs": [500.0] * 3, "n_valid": [N, 100, N], "lead_present": [[True, False]] * 3}
    more |= {"age": [50.0, None, 70.0], "sex": ["female"] * 3, "labels": [["AF"]] * 3}
    stated = {"leads": '["I", "II"]', "unit": "mV"}
    files = {
        "parquet": parquet_bytes(ids | more, stated, compression="zstd", row_group_size=2),
        "parquet_plain": parquet_bytes(ids, {}, compression="none", use_dictionary=False),
    }
    return [Seed(name, "r.parquet", {"r.parquet": raw}) for name, raw in files.items()]


MAPPING = (
    "dataset,record_id,mapped_label,patient_id,fold,path,age,sex,annotated\n"
    "ptbxl,00001_lr,NORM;SR,p1,9,records100/00000/00001_lr,57,F,\n"
    "ptbxl,00002_lr,MI,p1,9,,57.5,F,MI;NORM\n"
    'georgia,E00001,"AF",,,,,M,\n'
    "georgia,E00002,OTHER,,1,,,,\n"
)


def record_seeds() -> list[Seed]:
    """Return the seeds of every format that `src.records` reads."""
    return [
        *wfdb_seeds(),
        *mat_seeds(),
        *hdf5_seeds(),
        *edf_seeds(),
        *dicom_seeds(),
        *xml_seeds(),
        *scp_seeds(),
        *ishne_seeds(),
        *array_seeds(),
        *parquet_seeds(),
    ]
