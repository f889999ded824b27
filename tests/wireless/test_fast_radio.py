"""The abstraction compared with the full chain on fresh seeds: block errors, bit errors, retransmissions, bits."""

import json
from importlib.resources import files

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng
from fedaigc.wireless.adaptive import choose_scheme
from fedaigc.wireless.block_code import MCS, PAYLOAD_BITS, Scheme
from fedaigc.wireless.block_table import block_table, block_tables
from fedaigc.wireless.channel import Channel
from fedaigc.wireless.fading import Fading
from fedaigc.wireless.fast_radio import FastRadioChannel
from fedaigc.wireless.modulation import MODULATIONS, Modulation
from fedaigc.wireless.radio import RadioChannel, Transmission

BLOCKS = 120
# schemes times SNRs that are compared below; 99 % that none of the intervals fails
BOUND = 0.01 / (3 * 4)


def blocks_wrong(channel: Channel, blocks: int, seed: int) -> tuple[np.ndarray, int]:
    """Bit errors of each block, and the bits on air."""
    random = numpy_rng(seed, "fast against full")
    sent = random.integers(0, 2, blocks * PAYLOAD_BITS, dtype=np.uint8)
    reception = channel.send(sent, random)
    return (sent != reception.bits).reshape(blocks, -1).sum(axis=1), reception.bits_on_air


def snr_of(index: int, rate: float) -> float:
    """Return the SNR at which the table has this block error rate."""
    grid = np.arange(-15, 35, 0.01)
    return float(grid[np.argmin(np.abs(block_table(MCS[index]).block_error_rate(grid) - rate))])


def test_every_scheme_was_measured_over_its_whole_fall() -> None:
    assert set(block_tables()) == set(MCS.values())
    for table in block_tables().values():
        rates = table.failed / table.blocks
        assert rates[0] > 0.95
        assert rates[-1] < 2e-3
        assert (np.diff(table.snr_db) > 0).all()
        assert (np.diff(table.error_quantiles, axis=1) >= 0).all()


QUICK = ((4, 0.5), (15, 0.9))
RATES = [
    pytest.param(index, rate, marks=[] if (index, rate) in QUICK else [pytest.mark.slow])
    for index in (4, 8, 15, 23)
    for rate in (0.5, 0.1, 0.9)
]


@pytest.mark.parametrize(("index", "rate"), RATES)
def test_block_errors_of_the_full_chain_on_fresh_seeds(index: int, rate: float) -> None:
    """The table's rate, from 1,000 blocks, lies in the interval of the failures here."""
    snr_db = snr_of(index, rate)
    wrong, on_air = blocks_wrong(RadioChannel(Transmission(MCS[index]), snr_db), BLOCKS, seed=77)
    assert on_air == BLOCKS * MCS[index].coded_bits
    failed = int((wrong > 0).sum())
    # the table's own spread, and that of a curve that is straight between its points
    slack = 3.5 * np.sqrt(rate * (1 - rate) / 1000) + 0.03
    low = binom.ppf(BOUND / 2, BLOCKS, max(0.0, rate - slack))
    high = binom.isf(BOUND / 2, BLOCKS, min(1.0, rate + slack))
    assert low <= failed <= high, (failed, BLOCKS * rate)


@pytest.mark.parametrize("index", [4, pytest.param(15, marks=pytest.mark.slow)])
def test_failed_blocks_hold_as_many_errors(index: int) -> None:
    """Mean bit errors in failed blocks, with half of the blocks failing, within a joint interval."""
    snr_db = snr_of(index, 0.5)
    full, _ = blocks_wrong(RadioChannel(Transmission(MCS[index]), snr_db), BLOCKS, seed=78)
    fast, _ = blocks_wrong(FastRadioChannel(Transmission(MCS[index]), snr_db), 4000, seed=78)
    full, fast = full[full > 0], fast[fast > 0]
    spread = np.sqrt(full.var(ddof=1) / len(full) + fast.var(ddof=1) / len(fast))
    assert abs(full.mean() - fast.mean()) < norm.isf(0.0025) * spread + 2


@pytest.mark.slow
def test_retransmission_over_fades_as_in_the_full_chain() -> None:
    """With blocks resent up to 3 times over Rayleigh fades of one block, bits on air and failures agree."""
    scheme = MCS[8]
    fading = Fading(scheme.coded_bits // scheme.bits_per_symbol)
    transmission = Transmission(scheme, 3, "erase")
    full, full_air = blocks_wrong(RadioChannel(transmission, 6.0, fading), 300, seed=79)
    runs = [blocks_wrong(FastRadioChannel(transmission, 6.0, fading), 300, seed=s) for s in range(100, 140)]
    air = np.array([bits for _, bits in runs])
    failed = np.array([(wrong > 0).mean() for wrong, _ in runs])
    assert abs(full_air - air.mean()) < norm.isf(0.0025) * air.std(ddof=1) * np.sqrt(1 + 1 / 40)
    assert abs((full > 0).mean() - failed.mean()) < norm.isf(0.0025) * failed.std(ddof=1) * 1.02 + 0.01


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_uncoded_bits_over_fades(modulation: Modulation) -> None:
    """Mean error rates over 2,000 fades against the closed form for Rayleigh."""
    from fedaigc.wireless.modulation import BITS_PER_SYMBOL, bit_error_rates

    width = BITS_PER_SYMBOL[modulation]
    random = numpy_rng(5, modulation)
    sent = random.integers(0, 2, 20_000 * width, dtype=np.uint8)
    channel = FastRadioChannel(Transmission(Scheme(modulation, None)), 10.0, Fading(10))
    wrong = (channel.send(sent, random).bits != sent).reshape(2000, -1).mean(axis=1)
    expected = bit_error_rates(modulation, 10.0, rayleigh=True).mean()
    assert abs(wrong.mean() - expected) < norm.isf(0.0025 / 4) * wrong.std(ddof=1) / np.sqrt(2000)


def test_the_fastest_scheme_that_the_channel_carries() -> None:
    assert choose_scheme(40.0) == MCS[26]
    assert choose_scheme(-20.0) == MCS[2]
    efficiencies = [choose_scheme(snr_db).efficiency for snr_db in np.arange(-5, 30, 0.5)]
    assert efficiencies == sorted(efficiencies)
    chosen = choose_scheme(11.0, 0.01)
    assert float(block_table(chosen).block_error_rate(np.array(11.0))) <= 0.01


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="shorter than a code block"):
        FastRadioChannel(Transmission(MCS[8]), 5.0, Fading(10))
    with pytest.raises(UserError, match="no block errors measured"):
        FastRadioChannel(Transmission(Scheme("qpsk", 0.5)), 5.0)
    with pytest.raises(UserError, match=r"\(0, 1\)"):
        choose_scheme(5.0, 0.0)


@pytest.mark.parametrize("index", MCS)
def test_sionnas_own_table_is_half_a_db_away_at_most(index: int) -> None:
    """TS 38.214, MCS table 2, code blocks of 1,000 bits, in steps of 1.6 dB.

    The published ones were decoded by belief propagation, ours by offset min-sum, which costs some tenths of a dB.
    """
    path = files("sionna.sys") / "bler_tables" / "PDSCH_table2.json"
    table = json.loads(path.read_text(encoding="utf-8"))["category"]["1"]["index"]["2"]["MCS"][str(index)]
    theirs, snr_db = np.array(table["CBS"]["1000"]["BLER"]), np.array(table["SNR_db"])
    ours = block_table(MCS[index])
    assert (ours.block_error_rate(snr_db + 0.5) <= theirs + 0.02).all()
    assert (ours.block_error_rate(snr_db - 0.25) >= theirs - 0.02).all()
