"""Tables and figures of studies, by hand and compared with the files of the records."""

import json
from collections.abc import Callable
from statistics import fmean

import pytest

from experiments.pages import strategies, studies
from experiments.pages.records import RECORDS, ROOT
from experiments.pages.registry import figure_of, holds, table_of
from experiments.pages.studies import Recorded
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate
from fedaigc.study.design.config import read_study
from fedaigc.study.results.summary import PartitionResults, RowResults
from tests.study.conftest import study_record

CLIENTS = [
    {"client": 0, "new": False, "images": 1, "composition": {"noto": 1}},
    {"client": 1, "new": False, "images": 3, "composition": {"blob": 3}},
]
SEEDS = (0, 1, 2, 3, 4)
Losses = Callable[[int], tuple[float, float]]


def row(name: str, losses: Losses, finished: tuple[int, ...] = SEEDS) -> RowResults:
    """Return a row with the losses of two clients by seed, of five expected seeds."""
    records = {
        seed: study_record(
            status="finished",
            clients=CLIENTS,
            evaluations=[{"collaborative": list(losses(seed)), "device": list(losses(seed))}],
        )
        for seed in finished
    }
    return RowResults(name, SEEDS, records)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pass results to the functions in place of the records of strategies.toml."""
    study = read_study(ROOT / "experiments" / "configs" / "strategies.toml")

    def give(*rows: RowResults) -> None:
        found = Recorded(study, PartitionResults("style", rows, {}))
        for module in (strategies, studies):
            monkeypatch.setattr(module, "recorded", lambda name: found)

    return give


def fedit(seed: int) -> tuple[float, float]:
    return 1.0, 2.0


def uniform(seed: int) -> tuple[float, float]:
    return 0.99, 1.99


def fednova(seed: int) -> tuple[float, float]:
    return 1.0 - 0.01 * (seed + 1), 2.0 - 0.03 * (seed + 1)


def test_what_is_left_against_the_uniform_mean(given: Callable[..., None]) -> None:
    """By hand, with t(0.975, 4) = 2.7764, s(1 ... 5) = 1.5811, and the distribution of t with four degrees

    F(t) = 1/2 + 3/8 t / sqrt(1 + t^2 / 4) (1 - t^2 / (12 (1 + t^2 / 4))).

    FedNova lies 0.02 k below FedIT with clients alike, 0.025 k by pictures (1 and 3), k = 1 ... 5; the
    uniform mean 0.01 in both.
    """
    given(
        row("fedit", fedit),
        row("fedit, uniform", uniform),
        row("fednova", fednova),
        row("fedtrimmedavg", fedit, finished=(0, 1, 2)),
        row("hetlora", fedit, finished=()),
        row("qfedavg", fedit, finished=()),
        row("scaffold", fedit, finished=()),
        row("other", fedit, finished=()),
    )
    alike, by_pictures = "| fednova | clients alike", "| fednova | by pictures"
    assert table_of(["against_uniform"]).splitlines() == [
        "| row | mean over clients | difference to fedit | p | difference to fedit, uniform | p |",
        "| --- | --- | --- | --- | --- | --- |",
        "| fedit, uniform | clients alike | -0.0100 [-0.0100, -0.0100] | 0.000 | – | – |",
        "| fedit, uniform | by pictures | -0.0100 [-0.0100, -0.0100] | 0.000 | – | – |",
        f"{alike} | -0.0600 [-0.0993, -0.0207] | 0.013 | -0.0500 [-0.0893, -0.0107] | 0.024 |",
        f"{by_pictures} | -0.0750 [-0.1241, -0.0259] | 0.013 | -0.0650 [-0.1141, -0.0159] | 0.021 |",
        "",
        "Not in this table:",
        "",
        "- not run under seed 3, 4: fedtrimmedavg",
        "- not run under seed 0, 1, 2, 3, 4: hetlora; qfedavg; scaffold",
    ]


def test_without_the_uniform_mean_nothing_is_compared(given: Callable[..., None]) -> None:
    given(row("fedit", fedit), row("fedit, uniform", uniform, finished=(0,)), row("fednova", fednova))
    assert table_of(["against_uniform", "fednova"]) == (
        "\nNot in this table:\n\n- not run under seed 1, 2, 3, 4: fedit, uniform\n"
    )


def test_a_row_that_is_not_complete_gives_no_figure(given: Callable[..., None]) -> None:
    given(row("fedit", fedit), row("fednova", fednova, finished=(0, 1)))
    with pytest.raises(UserError, match="fednova is not complete: not run under seed 2"):
        figure_of(["loss", "strategies", "fednova"])
    with pytest.raises(
        UserError, match="'hetlora' is not a row of strategies: expected one of fedit, fednova"
    ):
        figure_of(["loss", "strategies", "hetlora"])


def test_rows_below_the_reference_under_each_seed(given: Callable[..., None]) -> None:
    given(
        row("fedit", fedit),
        row("fednova", fednova),
        row("same once", lambda k: fedit(k) if k == 4 else fednova(k)),
    )
    assert holds(["below_reference", "strategies", "fednova"])
    assert not holds(["below_reference", "strategies", "fednova", "same once"])
    assert figure_of(["under_seeds", "strategies", "fednova", "3", "4"]) == pytest.approx([0.08, 0.1])


@pytest.fixture(scope="module")
def losses() -> dict[str, list[float]]:
    """Return the mean loss at the edge of each row of the study of bytes, by seed, read directly from the files."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted((RECORDS / "bytes").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        values = record["evaluations"][-1]["collaborative"]
        if record["run"]["purpose"] == "report" and values is not None:
            old = [
                value for client, value in zip(record["clients"], values, strict=True) if not client["new"]
            ]
            found.setdefault(record["run"]["label"], {})[record["run"]["seed"]] = fmean(old)
    return {
        name: [values[seed] for seed in sorted(values)] for name, values in found.items() if name != "base"
    } | {"base": [*found["base"].values()] * 3}


def test_figures_agree_with_the_files(losses: dict[str, list[float]]) -> None:
    means = {name: fmean(values) for name, values in losses.items()}
    loss = figure_of(["loss", "bytes", "rank 8"])
    assert isinstance(loss, Estimate)
    assert loss.mean == pytest.approx(means["rank 8"])
    assert figure_of(["loss", "bytes", "base"]) == pytest.approx(means["base"])
    gap = means["full weights"] - means["rank 8"]
    assert figure_of(["gap", "bytes", "full weights"]) == pytest.approx(gap)
    gain, difference = (
        figure_of(["gain", "bytes", "full weights"]),
        figure_of(["diff", "bytes", "full weights"]),
    )
    assert (gain.mean, gain.low, gain.high) == (-difference.mean, -difference.high, -difference.low)
    assert figure_of(["gate", "bytes", "gain"]) == pytest.approx(means["base"] - means["pooled"])
    part = (means["base"] - means["rank 8"]) / (means["base"] - means["pooled"])
    assert figure_of(["way", "bytes", "rank 8"]) == pytest.approx(part)
    assert figure_of(["below", "bytes", "rank 4", "base"]) == pytest.approx(means["base"] - means["rank 4"])


def test_the_table_has_the_rows_and_columns_that_are_asked_for(losses: dict[str, list[float]]) -> None:
    lines = table_of(["results", "bytes", "edge", "3", "loss", "up"]).splitlines()
    assert lines[0] == "| row | loss | MB up |"
    # local only has no global state
    assert {line.split(" | ")[0][2:] for line in lines[2:]} == {*losses} - {"local only"}
    (rank8,) = [line for line in lines if line.startswith("| rank 8 |")]
    assert rank8.startswith(f"| rank 8 | {fmean(losses['rank 8']):.4f} [")
    device = table_of(["results", "bytes", "device", "3", "loss"]).splitlines()
    # of one rule the devices run what the edge runs, but for the rounding of what they are sent
    rounded = [f"rank 8, {form}" for form in ("float16", "bfloat16", "int8")]
    assert [line.split(" | ")[0][2:] for line in device[2:]] == ["local only", "rank 8", *rounded]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["results", "no_study", "edge", "3"], "'no_study' is not a study: expected one of bytes, galleries"),
        (["results", "bytes", "server", "3"], "expected edge or device, got 'server'"),
        (["results", "bytes", "edge", "4"], "bytes has no set of 4 seeds: expected one of 3"),
        (["results", "bytes", "edge", "3", "time"], "'time' is not a column: expected some of loss, diff"),
        (
            ["results", "bytes", "edge", "many"],
            "results bytes edge many: expected results STUDY MODE SEEDS COLUMNS",
        ),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        table_of(words)
    assert said in str(raised.value)
