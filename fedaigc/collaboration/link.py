"""The simulated radio link from an executor to the members of its groups.

Every packet goes over its member's own channel, drawn from the run's seed and the task: who answers first
changes nothing. The server simulates the link and hands the device the packet as it would have arrived.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedaigc.collaboration.delivery import Delivery, deliver
from fedaigc.diffusion.handoff import BodyTensor
from fedaigc.rng import numpy_rng
from fedaigc.wireless.adaptive import choose_scheme
from fedaigc.wireless.block_code import MCS, Scheme
from fedaigc.wireless.channel import BinarySymmetricChannel, Channel, PerfectChannel
from fedaigc.wireless.fading import NO_FADING, Fading, coherence_time_s
from fedaigc.wireless.fast_radio import FastRadioChannel
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.modulation import MODULATIONS
from fedaigc.wireless.number_format import FormatName
from fedaigc.wireless.profiles import EDGE, PHONE
from fedaigc.wireless.protection import UnequalChannel
from fedaigc.wireless.radio import FailedBlock, RadioChannel, Transmission
from fedaigc.wireless.repair import Repair

_SCHEMES = ("adaptive", *(f"mcs-{index}" for index in MCS), *(f"uncoded-{name}" for name in MODULATIONS))
# one fade for all that is ever sent
_FOREVER = 2**40


class LinkSettings(BaseModel):
    """What a link is; of bit_error_rate, snr_db and distance_m at most one, none for a perfect channel.

    number_format: of latents and history on the air; None sends all bits as they were computed.
    bit_error_rate: flips alone, no radio, as in [Du23]. snr_db: mean Es / N0, the same for all members.
    distance_m, tx_power_w, bandwidth_hz, speed_m_s: the link budget of `RadioLink`; bandwidth and speed count
        under snr_db too.
    scheme: "adaptive" (by the mean SNR, at a block error rate of 0.1), "mcs-8", "uncoded-qpsk" and so on.
    protected_planes: so many of the most significant bit planes go through the most robust coded scheme.
    rayleigh: block fading for as long as the speed lets it last. max_transmissions, failed_block: see
        `Transmission`; they concern coded schemes. full_chain: every symbol through sionna, not the tables.
    repair: what the receiver does about implausible values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number_format: FormatName | None = "fixed8-gray"
    bit_error_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    snr_db: Annotated[float, Field(allow_inf_nan=False)] | None = None
    distance_m: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    tx_power_w: Annotated[float, Field(gt=0, allow_inf_nan=False)] = EDGE.tx_power_w
    bandwidth_hz: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e6
    speed_m_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    scheme: str = "adaptive"
    protected_planes: Annotated[int, Field(ge=0)] = 0
    rayleigh: bool = False
    max_transmissions: Annotated[int, Field(ge=1)] = 1
    failed_block: FailedBlock = "keep"
    full_chain: bool = False
    repair: Repair = "clip"

    @model_validator(mode="after")
    def _consistent(self) -> "LinkSettings":
        given = [n for n in ("bit_error_rate", "snr_db", "distance_m") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say the same: give one of them")
        if self.scheme not in _SCHEMES:
            raise ValueError(f"scheme {self.scheme!r}: expected one of {', '.join(_SCHEMES)}")
        if self.protected_planes and (self.number_format is None or self.protected_planes >= 8):
            raise ValueError("protected_planes needs a number_format and leaves at least one plane: 0 to 7")
        return self


@dataclass(frozen=True)
class LinkReport:
    """One packet's way: `delivery` without the packet itself, and what it took.

    scheme: of the body. send_j: of an edge server's radio at the link's power, whoever ran the steps.
    receive_j: of a phone's. latency_s: until the last block was there.
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


class SimulatedLink:
    """Sends packets. seed: of the run."""

    def __init__(self, settings: LinkSettings, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._radio = RadioLink(
            distance_m=settings.distance_m or 1.0,
            tx_power_w=settings.tx_power_w,
            bandwidth_hz=settings.bandwidth_hz,
            speed_m_s=settings.speed_m_s,
        )

    @property
    def snr_db(self) -> float | None:
        """Mean Es / N0; None without a radio."""
        if self._settings.distance_m is not None:
            return self._radio.snr_db
        return self._settings.snr_db

    def send(self, packet: bytes, task_id: str) -> tuple[bytes, LinkReport]:
        """The packet as it arrives at the member with this task."""
        random = numpy_rng(self._seed, "link", task_id)
        delivery = deliver(packet, self._channel, random)
        return delivery.packet, self._report(delivery)

    def _channel(self, tensor: BodyTensor) -> Channel:
        settings = self._settings
        if settings.bit_error_rate is not None:
            return BinarySymmetricChannel(settings.bit_error_rate)
        if self.snr_db is None:
            return PerfectChannel()
        if not settings.protected_planes or tensor.number_format is None:
            return self._radio_channel(self._scheme())
        width = tensor.number_format.width
        return UnequalChannel(
            width,
            (settings.protected_planes, width - settings.protected_planes),
            (self._radio_channel(MCS[min(MCS)]), self._radio_channel(self._scheme())),
        )

    def _scheme(self) -> Scheme:
        name = self._settings.scheme
        if name == "adaptive":
            return choose_scheme(self.snr_db or 0.0)
        kind, _, which = name.partition("-")
        return MCS[int(which)] if kind == "mcs" else Scheme(_modulation(which), None)

    def _radio_channel(self, scheme: Scheme) -> Channel:
        settings = self._settings
        coded = scheme.code_rate is not None
        transmission = Transmission(
            scheme,
            settings.max_transmissions if coded else 1,
            settings.failed_block if coded else "keep",
        )
        kind = RadioChannel if settings.full_chain else FastRadioChannel
        return kind(transmission, self.snr_db or 0.0, self._fading(scheme))

    def _fading(self, scheme: Scheme) -> Fading:
        if not self._settings.rayleigh:
            return NO_FADING
        coherence_s = coherence_time_s(self._settings.speed_m_s, self._radio.carrier_hz)
        if math.isinf(coherence_s):
            return Fading(_FOREVER)
        return Fading(max(1, round(coherence_s * self._radio.symbol_rate_hz)))

    def _report(self, delivery: Delivery) -> LinkReport:
        airtime_s = self._radio.airtime_s(delivery.symbols)
        return LinkReport(
            scheme=self._name(),
            snr_db=self.snr_db,
            information_bits=delivery.information_bits,
            serialized_bits=delivery.serialized_bits,
            bits_on_air=delivery.bits_on_air,
            bit_errors=delivery.bit_errors,
            erased_bits=delivery.erased_bits,
            transmissions=delivery.transmissions,
            latency_s=self._radio.latency_s(delivery.symbols, delivery.transmissions),
            send_j=replace(EDGE.radio, tx_power_w=self._settings.tx_power_w).send_energy_j(airtime_s),
            receive_j=PHONE.radio.receive_energy_j(airtime_s),
        )

    def _name(self) -> str:
        if self._settings.bit_error_rate is not None:
            return "symmetric"
        if self.snr_db is None:
            return "perfect"
        scheme = self._scheme()
        rate = "uncoded" if scheme.code_rate is None else f"rate {scheme.code_rate:.2f}"
        return f"{scheme.modulation}, {rate}"


def _modulation(name: str) -> Literal["qpsk", "16qam", "64qam", "256qam"]:
    return next(modulation for modulation in MODULATIONS if modulation == name)
