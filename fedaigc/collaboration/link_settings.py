"""Settings of a simulated radio link, as in `[generation.link]` of a run's configuration file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from fedaigc.diffusion.sampling.noise_matched import BitErrors
from fedaigc.wireless.block_code import MCS
from fedaigc.wireless.modulation import MODULATIONS, bit_error_rates
from fedaigc.wireless.number_format import FormatName
from fedaigc.wireless.profiles import EDGE_SERVER
from fedaigc.wireless.radio import FailedBlock
from fedaigc.wireless.repair import Repair

_SCHEMES = ("adaptive", *(f"mcs-{index}" for index in MCS), *(f"uncoded-{name}" for name in MODULATIONS))
_OF_A_RADIO = (
    "scheme",
    "protected_planes",
    "rayleigh",
    "multicast",
    "max_transmissions",
    "failed_block",
    "full_chain",
)
_OF_A_CODE = ("max_transmissions", "failed_block")
Distance = Annotated[float, Field(strict=True, ge=1, le=1e6)]
# discriminated by the type of the input, so that an error message covers that type only
Distances = Annotated[
    Annotated[Distance, Tag("number")] | Annotated[tuple[Distance, ...], Field(min_length=1), Tag("list")],
    Discriminator(lambda given: "list" if isinstance(given, (list, tuple)) else "number"),
]


class LinkSettings(BaseModel):
    """Settings of a simulated radio link.

    At most one of `bit_error_rate`, `snr_db` and `distance_m` is set; without any of them the channel is
    perfect. Settings that would have no effect are refused, such as a scheme without a radio or
    retransmissions without a code.

    Attributes:
        number_format: Number format of latents and history on the air. None sends all bits as computed.
        bit_error_rate: Probability of a bit flip, without a radio, as in [Du23].
        snr_db: Mean Es / N0 in dB, the same for all members.
        distance_m: Distance of all members from the sender in metres, or a list from which the clients take their
            distances in turn, e.g. [30, 100, 200].
        tx_power_w: Radiated power in watts; applies to `distance_m`. In topologies without an edge a device sends, with
            0.2 W unless this says otherwise.
        bandwidth_hz: Bandwidth.
        speed_m_s: Speed of the receivers; the higher, the shorter a fade.
        scheme: "adaptive" (by the mean SNR, at a block error rate of 0.1), "mcs-8", "uncoded-qpsk" and so on.
        protected_planes: Number of most significant bit planes that use the most robust coded scheme.
        rayleigh: Whether the channel has block fading, with fades as long as the speed allows.
        max_transmissions: Transmissions of a block at most, the first included; for coded schemes.
        failed_block: What remains of a block whose checksum never agreed: "keep" the bits as decoded, or
            "erase" them; for coded schemes.
        full_chain: Whether every symbol is computed with sionna instead of using the tables.
        repair: How the receiver handles errors. "clip" and "zero" repair implausible values, "nothing" does
            nothing, and "noise-matched" resumes at the noise level that the expected errors leave. Noise
            matching needs a fixed-point number format and a flip rate that the receiver knows:
            `bit_error_rate`, or `snr_db` with an uncoded scheme. It gains nothing at rates of 2 % or less:
            see `fedaigc.diffusion.sampling.noise_matched`.
        multicast: Whether a group's packet is sent once, with the scheme that its worst member's channel
            supports. Every member has its own errors, and nothing is sent again.
        send_above_db: SNR threshold in dB. The edge server knows each member's current SNR and continues
            denoising while it is lower, for at most `wait_steps` steps and never past t*. The fade then lasts
            for the whole packet, and the scheme follows it. None does not wait.
        wait_steps: Further denoising steps at most while a channel is below `send_above_db`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number_format: FormatName | None = "fixed8-gray"
    bit_error_rate: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    snr_db: Annotated[float, Field(strict=True, ge=-100, le=100)] | None = None
    distance_m: Distances | None = None
    tx_power_w: Annotated[float, Field(strict=True, ge=1e-9, le=1e6)] = EDGE_SERVER.tx_power_w
    bandwidth_hz: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 1e6
    speed_m_s: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0
    scheme: str = "adaptive"
    protected_planes: Annotated[int, Field(ge=0)] = 0
    rayleigh: bool = False
    max_transmissions: Annotated[int, Field(ge=1)] = 1
    failed_block: FailedBlock = "keep"
    full_chain: bool = False
    repair: Repair | Literal["noise-matched"] = "clip"
    multicast: bool = False
    send_above_db: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    wait_steps: Annotated[int, Field(ge=1)] = 3

    @model_validator(mode="after")
    def _consistent(self) -> "LinkSettings":
        given = [n for n in ("bit_error_rate", "snr_db", "distance_m") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are mutually exclusive: set only one of them")
        if self.scheme not in _SCHEMES:
            raise ValueError(f"scheme {self.scheme!r}: expected one of {', '.join(_SCHEMES)}")
        if self.protected_planes and (self.number_format is None or self.protected_planes >= 8):
            raise ValueError(
                "protected_planes needs a number_format, and must be 0 to 7 to leave at least one plane"
            )
        if self.multicast and self.max_transmissions > 1:
            raise ValueError("multicast sends every block once: max_transmissions must be 1")
        if self.send_above_db is not None:
            self._can_wait()
        self._nothing_idle()
        if self.repair == "noise-matched":
            self._can_match()
        return self

    @property
    def mend(self) -> Repair:
        """The repair of implausible values, which comes before anything else that the receiver does."""
        # fixed point has no implausible values, but a packet may arrive in another format than agreed
        return "clip" if self.repair == "noise-matched" else self.repair

    @property
    def known_errors(self) -> BitErrors | None:
        """The bit errors to which the receiver matches the noise level; None for other repairs."""
        if self.repair != "noise-matched" or self.number_format is None:
            return None
        if self.bit_error_rate is not None:
            return BitErrors(self.number_format, self.bit_error_rate)
        # the bits of a plane alternate over all positions of a symbol, so every plane has the mean rate
        modulation = next(name for name in MODULATIONS if self.scheme == f"uncoded-{name}")
        return BitErrors(self.number_format, float(bit_error_rates(modulation, self.snr_db or 0.0).mean()))

    def for_receivers(self) -> "LinkSettings":
        """Return what a receiver needs: number format, repair and, for noise matching, the flip rate."""
        told: dict[str, object] = {"number_format": self.number_format, "repair": self.repair}
        if self.known_errors is None:
            return LinkSettings.model_validate(told)
        told |= {"bit_error_rate": self.bit_error_rate, "snr_db": self.snr_db, "scheme": self.scheme}
        return LinkSettings.model_validate(told)

    def _can_match(self) -> None:
        if self.number_format is None or self.number_format.startswith("float"):
            raise ValueError("noise-matched repair needs a fixed-point number_format")
        if self.bit_error_rate is not None and self.bit_error_rate >= 0.5:
            raise ValueError(
                f"noise-matched repair at bit_error_rate {self.bit_error_rate}: expected less than 0.5, from which "
                "on nothing of the sent values is left"
            )
        even = self.snr_db is not None and self.scheme.startswith("uncoded-")
        if self.bit_error_rate is None and not (even and not self.rayleigh and not self.protected_planes):
            raise ValueError(
                "noise-matched repair needs the same flip rate for all bits: set bit_error_rate, or snr_db with "
                "an uncoded scheme, no rayleigh and no protected_planes"
            )

    def _nothing_idle(self) -> None:
        """Refuse settings without effect, which are mistakes."""
        for names, needed, there in (
            (_OF_A_RADIO, "a radio (snr_db or distance_m)", self.snr_db is not None or self.distance_m),
            (_OF_A_CODE, 'a code (scheme "adaptive" or "mcs-...")', not self.scheme.startswith("uncoded-")),
            (("speed_m_s",), "fades (rayleigh = true)", self.rayleigh),
            (("wait_steps",), "send_above_db", self.send_above_db is not None),
        ):
            idle = [n for n in names if getattr(self, n) != type(self).model_fields[n].default]
            if idle and not there:
                has = "has" if len(idle) == 1 else "have"
                raise ValueError(f"{' and '.join(idle)} {has} no effect without {needed}")

    def _can_wait(self) -> None:
        if self.multicast:
            raise ValueError("send_above_db waits for the channel of one member: it excludes multicast")
        if not self.rayleigh or (self.snr_db is None and self.distance_m is None):
            raise ValueError(
                "send_above_db waits for the end of a fade: set rayleigh, and snr_db or distance_m"
            )
