from __future__ import annotations

import base64
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from src.records.folders import index_folder
from src.records.formats.safe_xml import parse_xml
from src.records.reading import iter_records, read_record
from src.records.record import RecordError

RNG = np.random.default_rng(31)
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
COUNTS = {name: RNG.integers(-2000, 2000, 600).astype("<i2") for name in EIGHT}
LIMB = ("III", "aVR", "aVL", "aVF")


def limb(i: np.ndarray, ii: np.ndarray) -> list[np.ndarray]:
    return [ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2]


# GE MUSE ------------------------------------------------------------------------------------------


def muse_lead(
    name: str,
    counts: np.ndarray,
    *,
    off: str = "FALSE",
    unit: str = "MICROVOLTS",
    size: int = 2,
    extra: int = 0,
) -> str:
    data = base64.encodebytes(counts.tobytes()).decode()
    return (
        f"<LeadData><LeadSampleCountTotal>{len(counts) + extra}</LeadSampleCountTotal>"
        f"<LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>"
        f"<LeadID>{name}</LeadID><LeadSampleSize>{size}</LeadSampleSize><LeadOff>{off}</LeadOff><WaveFormData>\n{data}</WaveFormData></LeadData>"
    )


def write_muse(
    path: Path,
    leads: str,
    *,
    kind: str = "Rhythm",
    base: str = "500",
    head: str = '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">',
) -> Path:
    path.write_text(
        '<?xml version="1.0" '
        f'encoding="ISO-8859-1"?>{head}<RestingECG><PatientDemographics><PatientID>P7</PatientID>'
        "<PatientAge>55</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender></PatientDemographics>"
        "<Diagnosis><DiagnosisStatement><StmtText>Sinus "
        "rhythm</StmtText></DiagnosisStatement></Diagnosis>"
        "<Waveform><WaveformType>Median</WaveformType><SampleBase>500</SampleBase>"
        f"{muse_lead('I', COUNTS['I'][:9])}</Waveform>"
        f"<Waveform><WaveformType>{kind}</WaveformType><SampleBase>{base}</SampleBase><SampleExponent>0</SampleExponent>{leads}</Waveform>"
        "</RestingECG>",
        encoding="latin-1",
    )
    return path


def test_muse_gives_twelve_leads_from_eight(tmp_path: Path) -> None:
    leads = "".join(
        muse_lead(name, counts, off="TRUE" if name == "V2" else "FALSE")
        for name, counts in COUNTS.items()
    )
    record = read_record(write_muse(tmp_path / "m.xml", leads))
    expected = [counts * 0.00488 for counts in COUNTS.values()]
    np.testing.assert_allclose(record.signal, expected + limb(*expected[:2]), atol=1e-5)
    assert (record.record_id, record.fs, record.leads) == ("m", 500.0, EIGHT + LIMB)
    assert (record.age, record.sex, record.patient_id, record.codes) == (
        55.0,
        "female",
        "P7",
        ("Sinus rhythm",),
    )
    assert record.flags == ("lead_off:V2", *(f"derived:{name}" for name in LIMB))
    assert [w.n_samples for w in iter_records(tmp_path / "m.xml", window_s=0.5)] == [250, 250]


def test_muse_missing_samples_and_leads_that_are_there(tmp_path: Path) -> None:
    counts = {name: np.array([100, -(2**15)], "<i2") for name in ("I", "II", *LIMB)}
    record = read_record(
        write_muse(
            tmp_path / "m.xml", "".join(muse_lead(*item, unit="mV") for item in counts.items())
        )
    )
    np.testing.assert_allclose(record.signal, [[488.0, np.nan]] * 6)
    assert record.flags == ()


@pytest.mark.parametrize(
    ("options", "lead", "expected"),
    [
        ({"kind": "Other"}, {}, "waveforms are Median, Other: expected one of type Rhythm"),
        ({"base": "x"}, {}, "SampleBase is 'x'"),
        ({}, {"unit": "BEATS"}, "lead II has 4.88 BEATS per bit: expected a voltage"),
        ({}, {"size": 4}, "lead II has 4 bytes per sample: expected 2"),
        ({}, {"extra": 1}, "lead II holds 600 samples, LeadSampleCountTotal promises 601"),
        ({}, {"extra": -1}, r"leads have \[599, 600\] samples"),
    ],
)
def test_bad_muse_files(
    tmp_path: Path, options: dict[str, str], lead: dict[str, object], expected: str
) -> None:
    leads = muse_lead("I", COUNTS["I"]) + muse_lead("II", COUNTS["II"], **lead)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=expected):
        read_record(write_muse(tmp_path / "m.xml", leads, **options))


# HL7 aECG -----------------------------------------------------------------------------------------


def aecg_lead(
    name: str, counts: np.ndarray, *, origin: str = "0", scale: str = "2.5", unit: str = "uV"
) -> str:
    digits = " ".join(map(str, counts.tolist()))
    return (
        f'<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}"/><value '
        f'xsi:type="SLIST_PQ"><origin value="{origin}" unit="{unit}"/>'
        f'<scale value="{scale}" '
        f'unit="{unit}"/><digits>{digits}</digits></value></sequence></component>'
    )


def write_aecg(
    path: Path,
    leads: str,
    *,
    step: str = "0.002",
    unit: str = "s",
    kind: str = "RHYTHM",
    sets: int = 1,
) -> Path:
    time = (
        '<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head '
        f'value="2003"/><increment value="{step}" '
        f'unit="{unit}"/></value></sequence></component>'
    )
    group = f"<component><sequenceSet>{time}{leads}</sequenceSet></component>"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        "<effectiveTime><low "
        'value="20031112101112"/></effectiveTime><componentOf><subject><trialSubject><id '
        'root="1.2" extension="S9"/>'
        '<subjectDemographicPerson><administrativeGenderCode code="M"/><birthTime '
        'value="19530508"/></subjectDemographicPerson></trialSubject></subject></componentOf>'
        "<component><series><code "
        f'code="{kind}"/>{group * sets}</series></component></AnnotatedECG>'
    )
    return path


def test_aecg(tmp_path: Path) -> None:
    leads = "".join(aecg_lead(name, counts, origin="10") for name, counts in COUNTS.items())
    record = read_record(write_aecg(tmp_path / "a.XML", leads, step="2", unit="ms"))
    expected = [(10 + counts * 2.5) / 1000 for counts in COUNTS.values()]
    np.testing.assert_allclose(record.signal, expected + limb(*expected[:2]), atol=1e-5)
    assert record.leads == (*(f"MDC_ECG_LEAD_{name.upper()}" for name in EIGHT), *LIMB)
    assert (record.fs, record.age, record.sex, record.patient_id) == (500.0, 50.0, "male", "S9")


@pytest.mark.parametrize(
    ("options", "lead", "expected"),
    [
        (
            {"kind": "REPRESENTATIVE_BEAT"},
            {},
            "series are REPRESENTATIVE_BEAT: expected one of RHYTHM",
        ),
        ({"step": "0"}, {}, "time increment is 0.0 s"),
        ({"unit": "h"}, {}, "time increment is 0.002 h"),
        ({"sets": 0}, {}, "series has no sequenceSet"),
        ({}, {"unit": "kg"}, "lead MDC_ECG_LEAD_II has origin .*: expected voltages"),
        ({}, {"scale": "x"}, "expected voltages"),
        ({}, {"counts": np.array(["a"])}, "lead MDC_ECG_LEAD_II has digits that are not numbers"),
        ({}, {"counts": COUNTS["II"][:5]}, r"leads have \[5, 600\] samples"),
    ],
)
def test_bad_aecg_files(
    tmp_path: Path, options: dict[str, object], lead: dict[str, object], expected: str
) -> None:
    leads = aecg_lead("I", COUNTS["I"]) + aecg_lead("II", **{"counts": COUNTS["II"], **lead})  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=expected):
        read_record(write_aecg(tmp_path / "a.xml", leads, **options))  # type: ignore[arg-type]


def test_a_second_sequence_set_is_flagged(tmp_path: Path) -> None:
    record = read_record(write_aecg(tmp_path / "a.xml", aecg_lead("II", COUNTS["II"]), sets=2))
    assert record.signal.shape == (1, 600) and record.flags == ("sequence_sets:2",)


@pytest.mark.parametrize(
    "encoding",
    ["gb2312", "gb18030", "shift_jis", "big5", "euc-kr", "utf-16", "utf-16-le", "cp1251"],
)
def test_any_declared_encoding(tmp_path: Path, encoding: str) -> None:
    text = write_muse(tmp_path / "m.xml", muse_lead("V1", COUNTS["V1"])).read_text("latin-1")
    name = {"cp1251": "\u0419", "euc-kr": "\uac00"}.get(encoding, "\u5fc3")
    text = text.replace("ISO-8859-1", encoding).replace("Sinus rhythm", name)
    (tmp_path / "m.xml").write_bytes(text.encode(encoding))
    assert [record.relative for record in index_folder(tmp_path)] == ["m.xml"]
    record = read_record(tmp_path / "m.xml")
    np.testing.assert_allclose(record.signal, COUNTS["V1"][None] * 0.00488, atol=1e-5)
    assert record.codes == (name,)


def test_an_encoding_that_is_wrong_costs_only_characters(tmp_path: Path) -> None:
    path = write_muse(tmp_path / "m.xml", muse_lead("V1", COUNTS["V1"]))
    good = path.read_bytes()
    path.write_bytes(good.replace(b"ISO-8859-1", b"UTF-8").replace(b"Sinus", b"Sin\xfcs"))
    assert read_record(path).codes == ("Sin\ufffds rhythm",)
    path.write_bytes(good.replace(b"ISO-8859-1", b"UTF-16"))
    assert read_record(path).n_samples == 600
    path.write_bytes(good.replace(b"ISO-8859-1", b"zip_codec"))
    with pytest.raises(RecordError, match="is not well-formed XML"):
        read_record(path)


def test_the_fullest_rhythm_of_a_muse_file_is_taken(tmp_path: Path) -> None:
    def wave(n: int) -> str:
        leads = "".join(muse_lead(name, COUNTS[name][:n]) for name in ("V1", "V2"))
        return (
            "<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase>"
            f"{leads}</Waveform>"
        )

    path = write_muse(tmp_path / "m.xml", muse_lead("V1", COUNTS["V1"][:100]))
    text = path.read_text("latin-1").replace("</RestingECG>", wave(600) + "</RestingECG>")
    path.write_text(text)
    record = read_record(path)
    assert record.signal.shape == (2, 600) and record.flags == ("rhythm_waveforms:2",)
    # A damaged one does not cost the other.
    path.write_text(text.replace(wave(600), wave(600).replace("MICROVOLTS", "BEATS")))
    assert read_record(path).signal.shape == (1, 100)


def test_a_lead_without_samples_is_absent(tmp_path: Path) -> None:
    empty = np.empty(0, "<i2")
    leads = muse_lead("V1", COUNTS["V1"]) + muse_lead("V2", empty)
    record = read_record(write_muse(tmp_path / "m.xml", leads))
    assert (record.leads, record.flags) == (("V1",), ("no_samples:V2",))
    leads = aecg_lead("V1", COUNTS["V1"]) + aecg_lead("V2", empty)
    record = read_record(write_aecg(tmp_path / "a.xml", leads))
    assert record.leads == ("MDC_ECG_LEAD_V1",)
    assert record.flags == ("no_samples:MDC_ECG_LEAD_V2",)


def test_a_silent_muse_file_takes_what_is_given(tmp_path: Path) -> None:
    lead = muse_lead("V1", COUNTS["V1"]).replace("4.88", "")
    path = write_muse(tmp_path / "m.xml", lead, base="")
    record = read_record(path, source_fs=250, source_gain_per_mv=200)
    np.testing.assert_allclose(record.signal, COUNTS["V1"][None] / 200, rtol=1e-6)
    assert record.fs == 250


def test_an_aecg_origin_without_a_unit_is_that_of_its_scale(tmp_path: Path) -> None:
    lead = aecg_lead("V1", COUNTS["V1"], origin="10").replace('value="10" unit="uV"', 'value="10"')
    record = read_record(write_aecg(tmp_path / "a.xml", lead))
    np.testing.assert_allclose(record.signal[0], (10 + COUNTS["V1"] * 2.5) / 1000, atol=1e-6)


def test_the_fullest_series_of_an_aecg_is_taken(tmp_path: Path) -> None:
    path = write_aecg(tmp_path / "a.xml", aecg_lead("V1", COUNTS["V1"][:50]))
    text = path.read_text()
    at = text.index("<component><series>")
    longer = write_aecg(tmp_path / "b.xml", aecg_lead("V1", COUNTS["V1"])).read_text()
    path.write_text(text[:at] + longer[at:].replace("</AnnotatedECG>", "") + text[at:])
    record = read_record(path)
    assert record.n_samples == 600 and record.flags == ("rhythm_series:2",)


# Hostile and foreign XML --------------------------------------------------------------------------

LAUGHS = (
    '<!DOCTYPE RestingECG [<!ENTITY a "ha"><!ENTITY b "'
    + "&a;" * 99
    + '"><!ENTITY c "'
    + "&b;" * 99
    + '">]>'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS + "<RestingECG>&c;</RestingECG>", "declares or uses an XML entity"),
        (
            '<!DOCTYPE r [<!ENTITY x SYSTEM "secret">]><RestingECG>&x;</RestingECG>',
            "declares or uses an XML entity",
        ),
        (
            '<!DOCTYPE r [<!ENTITY % x SYSTEM "secret"> %x;]><RestingECG/>',
            "declares or uses an XML entity",
        ),
        (
            '<!DOCTYPE RestingECG SYSTEM "secret"><RestingECG>&x;</RestingECG>',
            "declares or uses an XML entity",
        ),
        ("<RestingECG>" + "<a>" * 200, "is nested over 100 deep"),
        ("<RestingECG>", "is not well-formed XML"),
        ("", "is not well-formed XML"),
        ("<note/>", "its root element is note: expected RestingECG"),
    ],
)
def test_hostile_and_foreign_xml_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x.xml").write_text(text)
    tracemalloc.start()
    with pytest.raises(RecordError, match=expected) as error:
        read_record(tmp_path / "x.xml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "x.xml" in str(error.value) and peak < 1e6


def test_a_document_type_of_its_own_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(
        '<!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG a="1">t</RestingECG>'
    )
    root = parse_xml(tmp_path / "x.xml")
    assert (root.tag, root.attrib, root.text) == ("RestingECG", {"a": "1"}, "t")


def test_only_xml_of_recordings_is_listed(tmp_path: Path) -> None:
    write_muse(tmp_path / "a.xml", muse_lead("I", COUNTS["I"]))
    write_aecg(tmp_path / "b.xml", aecg_lead("I", COUNTS["I"]))
    (tmp_path / "pom.xml").write_text("<project/>")
    assert [record.relative for record in index_folder(tmp_path)] == ["a.xml", "b.xml"]


def test_a_set_of_heart_rates_and_a_scale_without_a_unit(tmp_path: Path) -> None:
    path = write_aecg(tmp_path / "a.xml", aecg_lead("II", COUNTS["II"]))
    rates = (
        "<component><sequenceSet><component><sequence><code "
        "code='TIME_ABSOLUTE'/></sequence></component></sequenceSet></component>"
    )
    path.write_text(path.read_text().replace("</series>", f"{rates}</series>"))
    assert read_record(path).flags == ("sequence_sets:2",)
    with pytest.raises(RecordError, match="expected voltages"):
        read_record(write_aecg(tmp_path / "b.xml", aecg_lead("II", COUNTS["II"], unit="")))
