"""Channels as bit pipes: the laws of each, and the coded chain compared with plain sionna."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng
from fedaigc.wireless.block_code import BLOCK_BITS, MCS, PAYLOAD_BITS, Scheme, block_code, to_blocks
from fedaigc.wireless.channel import BinarySymmetricChannel, Channel, PerfectChannel
from fedaigc.wireless.fading import Fading, coherence_time_s
from fedaigc.wireless.modulation import demapper, mapper
from fedaigc.wireless.protection import UnequalChannel
from fedaigc.wireless.radio import RadioChannel, Transmission
from fedaigc.wireless.sionna_random import sionna_random


def random_bits(count: int, seed: int = 0) -> np.ndarray:
    return numpy_rng(seed, "bits").integers(0, 2, count, dtype=np.uint8)


CHANNELS: dict[str, Channel] = {
    "perfect": PerfectChannel(),
    "symmetric": BinarySymmetricChannel(0.02),
    "qpsk": RadioChannel(Transmission(Scheme("qpsk", None)), 4.0),
    "256qam, rayleigh": RadioChannel(Transmission(Scheme("256qam", None)), 20.0, Fading(64)),
    "coded": RadioChannel(Transmission(MCS[8]), 7.0),
    "coded, resent": RadioChannel(Transmission(MCS[8], 3, "erase"), 9.0, Fading(1024)),
    "unequal": UnequalChannel(8, (2, 6), (RadioChannel(Transmission(MCS[4]), 4.0), PerfectChannel())),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_the_contract_of_every_channel(name: str) -> None:
    channel, bits = CHANNELS[name], random_bits(4000)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = channel.send(bits, numpy_rng(0, "channel"))
    assert torch.equal(torch.rand(3), expected), "a channel draws from its own stream only"
    again = channel.send(bits, numpy_rng(0, "channel"))
    assert np.array_equal(first.bits, again.bits)
    assert first.bits.shape == first.erased.shape == bits.shape
    assert set(np.unique(first.bits)) <= {0, 1}
    assert first.bits_on_air >= len(bits)
    assert first.transmissions >= 1
    assert len(channel.send(bits[:0], numpy_rng(0, "none")).bits) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3000), st.sampled_from(["perfect", "still", "loud"]))
def test_without_noise_a_channel_is_the_identity(count: int, name: str) -> None:
    channels: dict[str, Channel] = {
        "perfect": PerfectChannel(),
        "still": BinarySymmetricChannel(0.0),
        "loud": RadioChannel(Transmission(Scheme("64qam", None)), 60.0),
    }
    bits = random_bits(count)
    assert np.array_equal(channels[name].send(bits, numpy_rng(1, "loud")).bits, bits)


def test_flips_come_at_their_rate() -> None:
    """Of 100,000 bits at 2 %: within 4.4 standard deviations of 2,000."""
    bits = random_bits(100_000)
    flips = int((BinarySymmetricChannel(0.02).send(bits, numpy_rng(2, "flips")).bits != bits).sum())
    assert abs(flips - 2000) < 4.4 * np.sqrt(2000 * 0.98)


@pytest.mark.parametrize("index", MCS)
def test_every_scheme_carries_its_blocks_at_a_good_snr(index: int) -> None:
    bits = random_bits(2500)
    channel = RadioChannel(Transmission(MCS[index]), 28.0)
    reception = channel.send(bits, numpy_rng(0, "good"))
    code_rate = MCS[index].code_rate
    assert code_rate is not None
    assert np.array_equal(reception.bits, bits)
    assert reception.bits_on_air == 3 * MCS[index].coded_bits
    assert MCS[index].coded_bits == pytest.approx(BLOCK_BITS / code_rate, abs=8)


def test_stopping_early_finds_what_all_iterations_find() -> None:
    """Blocks that plain sionna decodes in 20 iterations are the same, and none is lost."""
    from sionna.phy.fec.ldpc import LDPC5GDecoder

    code, scheme = block_code(MCS[8]), MCS[8]
    payload = torch.from_numpy(to_blocks(random_bits(60 * PAYLOAD_BITS)).astype(np.float32))
    with sionna_random(numpy_rng(3, "noise")):
        from sionna.phy.channel import AWGN

        no = torch.tensor(10 ** (-7.0 / 10))
        received = AWGN(device="cpu")(mapper(scheme.modulation)(code.encode(payload)), no)
    llrs = demapper(scheme.modulation, hard=False)(received, no)
    plain = LDPC5GDecoder(code._encode, cn_update="offset-minsum", hard_out=True, num_iter=20, device="cpu")
    expected = plain(llrs)[:, :PAYLOAD_BITS]
    found, correct = code.decode(llrs)
    right = (expected == payload).all(dim=1)
    assert 5 <= int(right.sum()) <= 55, "an SNR where some blocks fail"
    assert torch.equal(correct, (found == payload).all(dim=1))
    assert bool((correct | ~right).all())


def test_chase_combining_of_two_receptions_is_3_db() -> None:
    """16-QAM at rate 0.54 fails at 5 dB and works at 8 dB, and therefore works at 5 dB if sent twice."""
    bits = random_bits(20 * PAYLOAD_BITS)
    once = RadioChannel(Transmission(MCS[8], 1, "erase"), 5.0).send(bits, numpy_rng(4, "once"))
    twice = RadioChannel(Transmission(MCS[8], 2, "erase"), 5.0).send(bits, numpy_rng(4, "twice"))
    assert once.erased.all()
    assert not twice.erased.any()
    assert np.array_equal(twice.bits, bits)
    assert twice.bits_on_air == 2 * once.bits_on_air == 40 * MCS[8].coded_bits


def test_unequal_protection_spares_the_planes_of_its_strong_class() -> None:
    bits = random_bits(8 * 1000)
    channel = UnequalChannel(8, (2, 6), (PerfectChannel(), BinarySymmetricChannel(0.5)))
    received = channel.send(bits, numpy_rng(0, "unequal")).bits
    assert np.array_equal(received[:2000], bits[:2000])
    assert 2500 < int((received[2000:] != bits[2000:]).sum()) < 3500


def test_fades_last_as_long_as_they_should() -> None:
    gains = Fading(10).gains(25, numpy_rng(0, "fades"), start=5)
    energies = gains.abs().square()
    assert len(energies.unique()) == 3
    assert bool((energies[:5] == energies[0]).all())
    many = Fading(1).gains(50_000, numpy_rng(1, "fades")).abs().square()
    # exponential of mean 1: the mean of 50,000 has a standard deviation of 0.0045
    assert abs(float(many.mean()) - 1) < 0.02
    assert abs(float((many < 0.1).float().mean()) - (1 - np.exp(-0.1))) < 0.006


def test_coherence_time_by_hand() -> None:
    """3 km/h at 3.5 GHz: Doppler 9.73 Hz, 0.4231 / 9.73 Hz = 43.5 ms."""
    assert coherence_time_s(3 / 3.6, 3.5e9) == pytest.approx(43.5e-3, rel=1e-2)
    assert coherence_time_s(0.0, 3.5e9) == float("inf")


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="bit_error_rate"):
        BinarySymmetricChannel(1.5)
    with pytest.raises(UserError, match="neither resent nor erased"):
        Transmission(Scheme("qpsk", None), 2)
    with pytest.raises(UserError, match=r"code rate 0\.99"):
        Scheme("qpsk", 0.99)
    with pytest.raises(UserError, match="add up to 8"):
        UnequalChannel(8, (2, 5), (PerfectChannel(), PerfectChannel()))
    with pytest.raises(UserError, match="at least 1"):
        Fading(0)
