"""The simulated radio link from an executor, an edge server or a device, to the members of its groups.

Every packet crosses the channel of its own member, drawn from the run's seed and the task. The order in which
devices answer therefore has no effect. The server simulates the link and gives the device the packet as it
would have arrived.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.collaboration.transmission import SentPacket, transmit
from fedaigc.diffusion.handoff.packing import BodyTensor
from fedaigc.rng import numpy_rng
from fedaigc.wireless.adaptive import choose_scheme
from fedaigc.wireless.block_code import MCS, Scheme
from fedaigc.wireless.channel import BinarySymmetricChannel, Channel, PerfectChannel
from fedaigc.wireless.fading import NO_FADING, Fading, coherence_time_s, doppler_hz, energies_over_time
from fedaigc.wireless.fast_radio import FastRadioChannel
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.modulation import MODULATIONS
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE, DeviceProfile
from fedaigc.wireless.protection import UnequalChannel
from fedaigc.wireless.radio import RadioChannel, Transmission

# symbols per fade of a receiver at rest: one fade for the whole transmission
_FOREVER = 2**40


@dataclass(frozen=True)
class LinkReport:
    """The transmission of one packet to one member: `SentPacket` without the packet, and time and energy.

    Attributes:
        scheme: Scheme of the body.
        snr_db: Mean Es / N0 in dB, or its current value if the sender knows it; None without a radio.
        information_bits, serialized_bits, bits_on_air, bit_errors, erased_bits, transmissions: See
            `SentPacket`.
        latency_s: Seconds until the last block was received.
        send_j: Joules of the sender's radio at the link's power: an edge server's, or a phone's where devices send to
            each other.
        receive_j: Joules of a phone's radio.
        members: Number of members that the transmission reached. For a multicast, `bits_on_air` and `send_j`
            are those of the whole transmission.
    """

    scheme: str
    snr_db: float | None
    information_bits: int
    serialized_bits: int
    bits_on_air: int
    bit_errors: int
    erased_bits: int
    transmissions: int
    latency_s: float
    send_j: float
    receive_j: float
    members: int = 1


@dataclass(frozen=True)
class Member:
    """The receiver of a packet.

    Attributes:
        task_id: The member's task.
        client: Client number of its device.
        step: Hand-off step: the denoising step before which the packet was packed.
    """

    task_id: str
    client: int
    step: int = 0


class SimulatedLink:
    """Sends packets over simulated channels.

    Args:
        settings: Settings of the link.
        seed: Seed of the run.
        sender: The machine that sends.
        hops: Returns the link to a client, in place of the distances of the settings; for machines that move.
    """

    def __init__(
        self,
        settings: LinkSettings,
        seed: int,
        sender: DeviceProfile = EDGE_SERVER,
        hops: Callable[[int], RadioLink] | None = None,
    ) -> None:
        self._settings, self._seed, self._sender, self._hops = settings, seed, sender, hops

    def snr_db(self, client: int) -> float | None:
        """Return the mean Es / N0 in dB at a client's device; None without a radio."""
        if self._hops is not None or self._settings.distance_m is not None:
            return self._radio(client).snr_db
        return self._settings.snr_db

    def departure(self, member: Member, later: Sequence[int]) -> int:
        """Return the hand-off step of a member's packet: its own, or one of the `later` ones.

        While the current SNR is below `send_above_db`, the sender continues denoising, for at most
        `wait_steps` steps.

        Args:
            member: Receiver of the packet, with its earliest hand-off step.
            later: Ascending steps at which the packet could be handed off as well.
        """
        threshold = self._settings.send_above_db
        if threshold is None:
            return member.step
        steps = [member.step, *(s for s in later if s <= member.step + self._settings.wait_steps)]
        good = (step for step in steps if self._moment_db(replace(member, step=step)) >= threshold)
        return next(good, steps[-1])

    def send(self, packets: Mapping[Member, bytes]) -> dict[Member, tuple[bytes, LinkReport]]:
        """Return the packets of a group as they arrive, each with its report."""
        if self._settings.multicast and packets:
            worst = min((self._now_db(member) for member in packets), key=lambda db: db or 0.0)
            return {m: self._send(packet, m, worst, len(packets)) for m, packet in packets.items()}
        return {m: self._send(packet, m, self._now_db(m), 1) for m, packet in packets.items()}

    def _send(
        self, packet: bytes, member: Member, chosen_at_db: float | None, members: int
    ) -> tuple[bytes, LinkReport]:
        random = numpy_rng(self._seed, "link", member.task_id)
        scheme = self._scheme(chosen_at_db)
        sent = transmit(packet, self._channel(self._now_db(member), scheme), random)
        return sent.packet, self._report(sent, member, scheme, members)

    def _now_db(self, member: Member) -> float | None:
        """Return the SNR that the sender knows."""
        waits = self._settings.send_above_db is not None
        return self._moment_db(member) if waits else self.snr_db(member.client)

    def _moment_db(self, member: Member) -> float:
        """Return the member's SNR at the end of the step before `member.step`; fades differ by task."""
        radio = self._radio(member.client)
        times = self._sender.step_s * np.arange(member.step + 1)
        random = numpy_rng(self._seed, "fades", member.task_id)
        # the last value is the current one: the fades up to a step do not depend on later steps
        energy = energies_over_time(times, doppler_hz(radio.speed_m_s, radio.carrier_hz), random)[-1]
        return (self.snr_db(member.client) or 0.0) + 10 * math.log10(max(energy, 1e-30))

    def _channel(self, snr_db: float | None, scheme: Scheme) -> Callable[[BodyTensor], Channel]:
        settings = self._settings

        def choose(tensor: BodyTensor) -> Channel:
            if settings.bit_error_rate is not None:
                return BinarySymmetricChannel(settings.bit_error_rate)
            if snr_db is None:
                return PerfectChannel()
            if not settings.protected_planes or tensor.number_format is None:
                return self._radio_channel(scheme, snr_db)
            width = tensor.number_format.width
            return UnequalChannel(
                width,
                (settings.protected_planes, width - settings.protected_planes),
                (self._radio_channel(MCS[min(MCS)], snr_db), self._radio_channel(scheme, snr_db)),
            )

        return choose

    def _scheme(self, snr_db: float | None) -> Scheme:
        name = self._settings.scheme
        if name == "adaptive":
            return choose_scheme(snr_db or 0.0)
        kind, _, which = name.partition("-")
        return MCS[int(which)] if kind == "mcs" else Scheme(_modulation(which), None)

    def _radio_channel(self, scheme: Scheme, snr_db: float) -> Channel:
        settings = self._settings
        coded = scheme.code_rate is not None
        transmission = Transmission(
            scheme,
            settings.max_transmissions if coded else 1,
            settings.failed_block if coded else "keep",
        )
        kind = RadioChannel if settings.full_chain else FastRadioChannel
        return kind(transmission, snr_db, self._fading())

    def _fading(self) -> Fading:
        # a sender that waits knows the fade, so the SNR already includes it
        if not self._settings.rayleigh or self._settings.send_above_db is not None:
            return NO_FADING
        radio = self._radio(0)
        coherence_s = coherence_time_s(radio.speed_m_s, radio.carrier_hz)
        if math.isinf(coherence_s):
            return Fading(_FOREVER)
        return Fading(max(1, round(coherence_s * radio.symbol_rate_hz)))

    def _radio(self, client: int) -> RadioLink:
        if self._hops is not None:
            return self._hops(client)
        settings = self._settings
        distance = settings.distance_m
        if isinstance(distance, tuple):
            distance = distance[client % len(distance)]
        return RadioLink(
            distance_m=distance or 1.0,
            tx_power_w=settings.tx_power_w,
            bandwidth_hz=settings.bandwidth_hz,
            speed_m_s=settings.speed_m_s,
        )

    def _report(self, sent: SentPacket, member: Member, scheme: Scheme, members: int) -> LinkReport:
        radio = self._radio(member.client)
        airtime_s = radio.airtime_s(sent.symbols)
        return LinkReport(
            scheme=self._name(member.client, scheme),
            snr_db=self._now_db(member),
            information_bits=sent.information_bits,
            serialized_bits=sent.serialized_bits,
            bits_on_air=sent.bits_on_air,
            bit_errors=sent.bit_errors,
            erased_bits=sent.erased_bits,
            transmissions=sent.transmissions,
            latency_s=radio.latency_s(sent.symbols, sent.transmissions),
            send_j=replace(self._sender.radio, tx_power_w=self._settings.tx_power_w).send_energy_j(airtime_s),
            receive_j=PHONE.radio.receive_energy_j(airtime_s),
            members=members,
        )

    def _name(self, client: int, scheme: Scheme) -> str:
        if self._settings.bit_error_rate is not None:
            return "symmetric"
        if self.snr_db(client) is None:
            return "perfect"
        rate = "uncoded" if scheme.code_rate is None else f"rate {scheme.code_rate:.2f}"
        return f"{scheme.modulation}, {rate}"


def _modulation(name: str) -> Literal["qpsk", "16qam", "64qam", "256qam"]:
    return next(modulation for modulation in MODULATIONS if modulation == name)
