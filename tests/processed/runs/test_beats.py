"""Windows around beats, from a table of beats to batches and a trained network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.__main__ import main
from src.classifier import Classifier
from src.config import (
    Config,
    DataConfig,
    ExecutionConfig,
    LoaderConfig,
    ModelConfig,
    PreprocessConfig,
    SplitConfig,
    TrainConfig,
    config_hash,
)
from src.dataloaders import build_dataloaders
from src.eval import evaluate
from src.labels.intervals import LabelInterval
from src.learning.networks.resnet1d import ResNet1d, RRFeatures
from src.model import count_parameters, list_stages
from src.preprocessing import run_preprocessing
from src.processed.manifest import load_manifest
from src.processed.packed import load_packed
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.processed.runs.beats import BeatWindows, compute_rr
from src.processed.runs.tasks import RejectedError
from src.records import reading
from src.records.reading import read_record
from src.records.record import Extent
from src.training import run_training

ONE = ExecutionConfig(workers=1)
BEATS = PreprocessConfig(fs=100.0, n_samples=256, before_s=1.0, after_s=1.56)
SPLITS = SplitConfig(val_fraction=0.25, test_fraction=0.25)


def write_collection(folder: Path, n_records: int, duration_s: int = 20) -> Path:
    """Write two-lead WFDB records of 100 Hz; return a table with a beat at each second."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    rows = ["dataset,record_id,mapped_label,annotated,start_s,end_s"]
    for i in range(n_records):
        n_samples = duration_s * 100
        rng.integers(-300, 300, (n_samples, 2)).astype("<i2").tofile(folder / f"r{i}.dat")
        (folder / f"r{i}.hea").write_text(
            f"r{i} 2 100 {n_samples}\nr{i}.dat 16 100/mV 16 0 0 0 0 II\nr{i}.dat 16 "
            "100/mV 16 0 0 0 0 V1\n"
        )
        rows += [f"d,r{i},{'NNV'[t % 3]},N;V,{t},{t}" for t in range(1, duration_s)]
    table = folder.parent / "beats.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def preprocess(folder: Path, n_records: int = 8) -> Path:
    table = write_collection(folder / "src", n_records)
    data = DataConfig({"d": str(folder / "src")})
    out = folder / "out"
    run_preprocessing(data, out, mapping=table, config=BEATS, splits=SPLITS, execution=ONE)
    return out


# Where windows lie --------------------------------------------------------------------------------


def test_rr_intervals_are_those_beside_a_beat() -> None:
    rr = compute_rr(np.array([1.0, 2.0, 2.5, 4.0]))
    assert rr.shape == (4, 11)
    assert rr[0].tolist() == [0, 0, 0, 0, 0, 1, 0.5, 1.5, 0, 0, 1]
    assert rr[2].tolist() == [0, 0, 0, 1, 0.5, 1.5, 0, 0, 0, 0, 1]
    assert compute_rr(np.array([3.0])).tolist() == [[0.0] * 11]
    assert compute_rr(np.zeros(0)).shape == (0, 11)


def test_a_window_that_leaves_the_record_is_none() -> None:
    times = (0.99, 1.0, 8.44, 8.45)
    beats = [LabelInterval(time, time, ("N",)) for time in times]
    windows = BeatWindows(beats, BEATS)
    assert windows.place(Extent(1000, 100.0)) == [(0, 256), (744, 1000)]
    assert windows.inside == [1, 2]
    with pytest.raises(RejectedError, match=r"the beat N at 8.44 s lies beyond .* end at 8 s"):
        windows.place(Extent(800, 100.0))


def test_windows_around_beats_leave_earlier_hashes_as_they_were() -> None:
    assert config_hash(PreprocessConfig(), 2) == "eb0a0eb10f328c47"
    assert config_hash(replace(BEATS, after_s=1.0), 2) != config_hash(BEATS, 2)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"before_s": -1.0}, "before_s"),
        ({"before_s": 2.0}, "before_s [+] after_s .*at most 2.56 s"),
        ({"window_s": 1.0}, "window_s .*0 with windows around beats"),
    ],
)
def test_wrong_windows_are_refused(settings: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(BEATS, **settings)  # type: ignore[arg-type]


# Record files and manifest ------------------------------------------------------------------------


def test_each_beat_gets_a_window_with_its_label_and_rr_intervals(tmp_path: Path) -> None:
    out = preprocess(tmp_path)
    rows = load_manifest(out).set_index("record_id")
    assert len(rows) == 8 * 19
    outside = rows[rows["status"] == "rejected"]
    assert outside["beat_s"].tolist() == ["19"] * 8
    assert set(outside["reason"]) == {
        "its window, 1 s before the beat to 1.56 s after it, leaves the record"
    }
    shown = ["labels", "annotated", "beat_s", "rr_before_s", "rr_after_s", "n_samples"]
    assert rows.loc[["r0__w00000", "r0__w00001"], shown].to_numpy().tolist() == [
        ["N", "N;V", "1", "", "1", "256"],
        ["V", "N;V", "2", "1", "1", "256"],
    ]
    # The beats of a patient, which is the record where none is named, are in one split.
    assert rows.groupby("patient_id")["split"].agg(lambda names: len(set(names) - {""})).max() == 1

    arrays = load_record_file(record_path(out, "d__r0__w00004"))
    whole = read_record(tmp_path / "src" / "r0.hea")
    np.testing.assert_allclose(to_millivolts(arrays)[1], whole.signal[0, 400:656], atol=1e-5)
    assert arrays["rr_s"].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert arrays["rr_s"].dtype == np.float32 and arrays["label"].tolist() == ["V"]
    with np.load(record_path(out, "d__r0__w00004"), allow_pickle=False) as file:
        assert {"signal", "lead_mean", "label", "rr_s"} <= set(file.files)


def test_a_second_run_makes_only_changed_records_anew(tmp_path: Path) -> None:
    out = preprocess(tmp_path, 4)
    data, table = DataConfig({"d": str(tmp_path / "src")}), tmp_path / "beats.csv"
    again = run_preprocessing(data, out, mapping=table, config=BEATS, splits=SPLITS, execution=ONE)
    assert again.n_skipped == 4
    table.write_text(table.read_text().replace("d,r1,N,N;V,3,3", "d,r1,V,N;V,3,3"))
    again = run_preprocessing(data, out, mapping=table, config=BEATS, splits=SPLITS, execution=ONE)
    assert again.n_skipped == 3
    assert load_manifest(out).set_index("record_id").loc["r1__w00002", "labels"] == "V"


def test_records_and_beats_without_each_other_are_listed(tmp_path: Path) -> None:
    table = write_collection(tmp_path / "src", 3)
    text = table.read_text()
    kept = [line for line in text.splitlines() if not line.startswith("d,r1,")]
    table.write_text("\n".join([*kept, "d,r9,N,N;V,1,1", "d,r2,N,N;V,21,21"]) + "\n")
    run_preprocessing(
        DataConfig({"d": str(tmp_path / "src")}),
        tmp_path / "out",
        mapping=table,
        config=BEATS,
        execution=ONE,
    )
    rows = load_manifest(tmp_path / "out").set_index("record_id")
    assert rows.loc["r9", "status"] == "missing"
    assert rows.loc["r1", "reason"].startswith("no row of the table of beats is of it")
    assert rows.loc["r2", "reason"] == (
        "the beat N at 21 s lies beyond the record's end at 20 s: expected seconds from its "
        "beginning"
    )


def test_copies_of_a_record_stay_in_one_split(tmp_path: Path) -> None:
    table = write_collection(tmp_path / "src", 8)
    source = tmp_path / "src"
    (source / "copy.dat").write_bytes((source / "r0.dat").read_bytes())
    (source / "copy.hea").write_text((source / "r0.hea").read_text().replace("r0", "copy"))
    rows = [line for line in table.read_text().splitlines() if line.startswith("d,r0,")]
    with open(table, "a") as stream:
        stream.write("\n".join(rows).replace("d,r0,", "d,copy,") + "\n")
    summary = run_preprocessing(
        DataConfig({"d": str(source)}), tmp_path / "out", mapping=table, config=BEATS, execution=ONE
    )
    # A group for each of the 18 windows, and none within a record.
    assert summary.n_copied == 18
    rows_of = load_manifest(tmp_path / "out").set_index("record_id")
    assert rows_of.loc["copy__w00003", "split"] == rows_of.loc["r0__w00003", "split"]


def test_a_long_record_is_read_in_few_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_collection(tmp_path / "src", 1, duration_s=60)
    n_read = []
    read = reading._read

    def count(*args: object) -> object:
        n_read.append(args)
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "_read", count)
    monkeypatch.setattr(reading, "_SAMPLES_TOGETHER", 2000)
    run_preprocessing(
        DataConfig({"d": str(tmp_path / "src")}),
        tmp_path / "out",
        mapping=table,
        config=BEATS,
        execution=ONE,
    )
    assert len(n_read) == 5  # the beginning, then 60 s in parts of up to 20 s
    assert (load_manifest(tmp_path / "out")["status"] == "ok").sum() == 58


# Training -----------------------------------------------------------------------------------------


class TakesRR(torch.nn.Module):
    """Predicts by the interval before the beat alone."""

    takes_rr = True
    min_samples = 1

    def __init__(self, n_leads: int, n_classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1, n_classes)

    def forward(self, x: torch.Tensor, rr: torch.Tensor | None = None) -> torch.Tensor:
        rr = x.new_zeros(len(x), 11) if rr is None else rr
        out: torch.Tensor = self.linear(rr[:, 4:5])
        return out


@pytest.mark.parametrize("cache", ["off", "packed"])
def test_batches_hold_the_rr_intervals(cache: str, tmp_path: Path) -> None:
    out = preprocess(tmp_path)
    config = Config(loader=LoaderConfig(batch_size=4, cache=cache), train=TrainConfig(seed=1))
    loaders = build_dataloaders(config, out)
    assert loaders.view.rr
    batch = next(iter(loaders.train))
    assert batch.rr is not None and batch.rr.shape == (4, 11)
    for row, rr in zip(batch.row.tolist(), batch.rr, strict=True):
        file = record_path(out, loaders.records["train"].keys[row])
        assert rr.tolist() == load_record_file(file, "rr_s")["rr_s"].tolist()
    if cache == "packed":
        packed = load_packed(out, "train")
        assert packed.rr_s is not None and packed.rr_s.shape == (len(packed), 11)


@pytest.mark.parametrize("network", ["resnet1d", f"{__name__}:TakesRR"])
def test_a_network_that_asks_is_trained_and_evaluated_with_them(
    network: str, tmp_path: Path
) -> None:
    out = preprocess(tmp_path)
    arguments: dict[str, object] = {"rr_intervals": True} if network == "resnet1d" else {}
    factory = TakesRR if network != "resnet1d" else None
    model = ModelConfig(network="resnet1d", network_args=arguments, base_channels=4)
    config = Config(
        model=model if factory is None else ModelConfig(),
        train=TrainConfig(epochs=1, leads=("II", "V1"), device="cpu"),
    )
    result = run_training(config, out, tmp_path / "run", network=factory)
    best = result.best_path
    if factory is None:
        evaluation = evaluate(best, out)
        assert evaluation.metrics["n_records"] == len(evaluation.predictions.keys) > 0
        # A recording does not tell where its beats are.
        with pytest.raises(ValueError, match=r"whose times a recording does not tell.*--beats"):
            Classifier.load(best).predict(tmp_path / "src" / "r0.hea")
    else:
        # The interval is 1 s for all beats but the first, so the scores are alike.
        member = result.model(torch.zeros(2, 2, 256), rr=torch.ones(2, 11))
        assert not torch.allclose(member, result.model(torch.zeros(2, 2, 256)))


def test_a_network_that_asks_needs_windows_around_beats(processed: Path, tmp_path: Path) -> None:
    config = Config(
        model=ModelConfig(network_args={"rr_intervals": True}), train=TrainConfig(epochs=1)
    )
    with pytest.raises(ValueError, match=r"resnet1d takes RR intervals, .* have none.*--beats"):
        run_training(config, processed, tmp_path / "run")
    beats = preprocess(tmp_path)
    config = replace(config, train=TrainConfig(epochs=1, mixup=0.2))
    with pytest.raises(ValueError, match="mixup blends two beats"):
        run_training(config, beats, tmp_path / "run")


def test_the_stages_count_all_parameters() -> None:
    model = ResNet1d(2, 3, base_channels=4, rr_intervals=True)
    table = list_stages(model, 2, 256)
    assert sum(stage.n_parameters for stage in table.stages) == count_parameters(model)


def test_unknown_intervals_count_as_the_median() -> None:
    torch.manual_seed(0)
    features = RRFeatures().eval()
    rr = torch.full((2, 11), 0.8)
    rr[1] = 1.1
    # A heart that is slower throughout looks the same.
    both = features(rr)
    torch.testing.assert_close(both[0], both[1])
    assert torch.isfinite(features(torch.zeros(1, 11))).all()


# The command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--beats", "B"], "--beats is given without a window"),
        (["--mapping", "B", "--after-s", "1"], "expected --beats CSV"),
    ],
)
def test_beats_and_their_window_go_together(
    options: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_collection(tmp_path / "src", 1)
    options = [str(table) if option == "B" else option for option in options]
    data = ["--data", f"d={tmp_path / 'src'}"]
    assert main(["preprocess", *data, *options, "--out", str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err


def test_check_counts_beats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_collection(tmp_path / "src", 2)
    window = ["--before-s", "1", "--after-s", "1", "--fs", "100", "--n-samples", "200"]
    data = ["--data", f"d={tmp_path / 'src'}"]
    assert main(["check", *data, "--beats", str(table), *window, "--workers", "1"]) == 0
    assert "windows by label: N (26), V (12)" in capsys.readouterr().out
