"""Link budget: from powers and distance to the SNR at the receiver, and from symbols to seconds and joules.

    path loss [dB] = 32.4 + 21 log10(d / m) + 20 log10(f / GHz)       UMi street canyon, line of sight
    snr [dB]       = P_tx - path loss - (-174 + 10 log10(B) + NF)     powers in dBm, B in Hz

Source: 3GPP TR 38.901, Table 7.4.1-1 (line of sight, below the breakpoint). Without line of sight the factor
is 31.9 instead of 21, as in the table's optional model. Shadowing is left out: results are for a stated
distance.
"""

import math
from dataclasses import dataclass

from fedaigc.errors import UserError

THERMAL_NOISE_DBM_HZ = -174.0


@dataclass(frozen=True)
class RadioLink:
    """A link between two machines.

    Attributes:
        distance_m: Distance in metres, at least 1.
        tx_power_w: Radiated power in watts.
        carrier_hz: Carrier frequency.
        bandwidth_hz: Bandwidth.
        noise_figure_db: Noise figure of the receiver.
        line_of_sight: Selects the path loss model.
        overhead: Share of the channel uses that carries no data (pilots, cyclic prefix, control), in [0, 1).
        round_trip_s: Time between a block and its retransmission.
        speed_m_s: Speed of the receiver relative to the sender.

    Raises:
        UserError: If a value is out of range.
    """

    distance_m: float
    tx_power_w: float
    carrier_hz: float = 3.5e9
    bandwidth_hz: float = 1e6
    noise_figure_db: float = 7.0
    line_of_sight: bool = True
    overhead: float = 0.14
    round_trip_s: float = 8e-3
    speed_m_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tx_power_w", "carrier_hz", "bandwidth_hz"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} is {value}: expected a finite number above 0")
        if not self.distance_m >= 1 or not math.isfinite(self.distance_m):
            raise UserError(f"distance_m is {self.distance_m}: expected at least 1, where the model begins")
        if not 0 <= self.overhead < 1 or self.round_trip_s < 0 or self.speed_m_s < 0:
            raise UserError("expected overhead in [0, 1), and round_trip_s and speed_m_s of at least 0")

    @property
    def path_loss_db(self) -> float:
        """Path loss between isotropic antennas."""
        slope, offset = (21.0, 32.4) if self.line_of_sight else (31.9, 32.4)
        return offset + slope * math.log10(self.distance_m) + 20 * math.log10(self.carrier_hz / 1e9)

    @property
    def snr_db(self) -> float:
        """Mean Es / N0 at the receiver, in dB."""
        noise_dbm = THERMAL_NOISE_DBM_HZ + 10 * math.log10(self.bandwidth_hz) + self.noise_figure_db
        return 10 * math.log10(self.tx_power_w * 1e3) - self.path_loss_db - noise_dbm

    @property
    def symbol_rate_hz(self) -> float:
        """Data symbols per second: one per second and hertz that is not overhead."""
        return self.bandwidth_hz * (1 - self.overhead)

    def airtime_s(self, symbols: int) -> float:
        """Return the seconds for which `symbols` symbols are on the air."""
        return symbols / self.symbol_rate_hz

    def latency_s(self, symbols: int, transmissions: int = 1) -> float:
        """Return the seconds until the last block is received.

        The latency is the airtime plus one round trip before each retransmission.
        """
        return self.airtime_s(symbols) + (transmissions - 1) * self.round_trip_s


@dataclass(frozen=True)
class RadioPower:
    """The power that a radio draws.

    Attributes:
        tx_power_w: Radiated power.
        amplifier_efficiency: Radiated power divided by the power that the amplifier draws, in (0, 1].
        circuit_w: Power of the rest of the sender while it sends.
        receive_w: Power of the receiver while it listens.

    Raises:
        UserError: If `amplifier_efficiency` is out of range.
    """

    tx_power_w: float
    amplifier_efficiency: float
    circuit_w: float
    receive_w: float

    def __post_init__(self) -> None:
        if not 0 < self.amplifier_efficiency <= 1:
            raise UserError(f"amplifier_efficiency is {self.amplifier_efficiency}: expected (0, 1]")

    def send_energy_j(self, airtime_s: float) -> float:
        """Return the joules that the sender needs for an airtime t of `airtime_s` seconds.

            (P_tx / efficiency + P_circuit) t

        P_tx / efficiency is the power that the amplifier draws.
        """
        return (self.tx_power_w / self.amplifier_efficiency + self.circuit_w) * airtime_s

    def receive_energy_j(self, airtime_s: float) -> float:
        """Return the joules that the receiver needs for `airtime_s` seconds: P_rx t."""
        return self.receive_w * airtime_s
