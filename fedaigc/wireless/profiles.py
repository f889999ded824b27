"""Device profiles: seconds and joules of a step, a decoding and a text encoding, and the power of radios.

Every figure states its origin: "measured" (with the source), "datasheet" or "assumed". An assumed figure
gives its reason, so that users with better data can replace it. Results that depend on an assumed figure must
state so.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import ConfigDict, ValidationError, with_config

from fedaigc.errors import DamagedFile, UserError
from fedaigc.validation import first_mistake, typed_json
from fedaigc.wireless.link_budget import RadioPower

Origin = Literal["measured", "datasheet", "assumed"]
_NUMBERS = (
    "step_s",
    "step_j",
    "text_s",
    "text_j",
    "decode_s",
    "decode_j",
    "tx_power_w",
    "amplifier_efficiency",
    "circuit_w",
    "receive_w",
)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class DeviceProfile:
    """Figures of one device with one model.

    Attributes:
        name: Name of the device.
        model: Model and image size that the figures apply to.
        step_s: Seconds of a denoising step of one sample, guidance included.
        step_j: Joules of such a step.
        text_s: Seconds of the text encoding of a prompt.
        text_j: Joules of the text encoding of a prompt.
        decode_s: Seconds of the decoding of an image.
        decode_j: Joules of the decoding of an image.
        tx_power_w: Radiated power of the radio in watts.
        amplifier_efficiency: Radiated power divided by the power that the amplifier draws, in (0, 1].
        circuit_w: Power of the rest of the sender while it sends.
        receive_w: Power of the receiver while it listens.
        sources: Origin and source of each of these figures, e.g. {"step_s": "measured: ..."}.

    Raises:
        UserError: If a figure has no source or is negative.
    """

    name: str
    model: str
    step_s: float
    step_j: float
    text_s: float
    text_j: float
    decode_s: float
    decode_j: float
    tx_power_w: float
    amplifier_efficiency: float
    circuit_w: float
    receive_w: float
    sources: Mapping[str, str]

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            if not getattr(self, name) >= 0:
                raise UserError(f"{self.name}: {name} is {getattr(self, name)}, expected 0 or more")
            if self.sources.get(name, "").split(":")[0] not in get_args(Origin):
                raise UserError(
                    f"{self.name}: {name} needs a source that begins with measured, datasheet or assumed"
                )

    @property
    def radio(self) -> RadioPower:
        """The figures of the radio."""
        return RadioPower(self.tx_power_w, self.amplifier_efficiency, self.circuit_w, self.receive_w)

    def image_s(self, steps: int) -> float:
        """Return the seconds for an image of which this device runs `steps` steps.

        One text encoding and the decoding are included.
        """
        return self.text_s + steps * self.step_s + self.decode_s

    def image_j(self, steps: int) -> float:
        """Return the joules for the work of `image_s`."""
        return self.text_j + steps * self.step_j + self.decode_j

    def shared_s(self, steps: int) -> float:
        """Return the seconds of an executor: a text encoding and `steps` steps, without decoding."""
        return self.text_s + steps * self.step_s

    def shared_j(self, steps: int) -> float:
        """Return the joules for the work of `shared_s`."""
        return self.text_j + steps * self.step_j

    def to_json(self) -> str:
        """Return the profile as JSON."""
        return json.dumps(asdict(self), indent=1)


def read_profile(path: Path) -> DeviceProfile:
    """Read a profile that `DeviceProfile.to_json` wrote.

    Raises:
        UserError: If the file cannot be read, or a figure of it is refused by `DeviceProfile`.
        DamagedFile: If the file is not a profile.
    """
    try:
        return typed_json(DeviceProfile, path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path} does not exist: create a profile with `fedaigc profile --output {path}`"
        ) from error
    except ValidationError as error:
        raise DamagedFile(f"{path} is not a profile: {first_mistake(error)}") from error


_PHONE_W = "assumed: 5 W, what a phone of this class sustains under load"
_RADIO = {
    "tx_power_w": "datasheet: 23 dBm, power class 3 of 3GPP TS 38.101-1",
    "amplifier_efficiency": "assumed: 0.35, a handset's power amplifier near its full power",
    "circuit_w": "assumed: 0.5 W for all else of a sending modem",
    "receive_w": "assumed: 0.8 W for a receiving modem",
}
# [Du23], Figure 4: 2, 4, ..., 20 steps on a phone
PHONE_STEPS = tuple(range(2, 21, 2))
PHONE_SECONDS = (18.0, 27.0, 36.0, 45.0, 54.0, 66.0, 77.0, 88.0, 97.0, 103.0)
PHONE = DeviceProfile(
    name="phone of [Du23] (Snapdragon 870)",
    model="Stable Diffusion v1-4, 512 px",
    step_s=4.92,
    step_j=24.6,
    text_s=0.0,
    text_j=0.0,
    decode_s=7.0,
    decode_j=35.0,
    tx_power_w=0.2,
    amplifier_efficiency=0.35,
    circuit_w=0.5,
    receive_w=0.8,
    sources={
        "step_s": "measured: [Du23], Figure 4, slope of a straight line (experiments.paper.fig4)",
        "decode_s": "measured: [Du23], Figure 4, intercept; text encoding and all else fixed are in it",
        "text_s": "measured: [Du23], Figure 4, in the intercept",
        "step_j": _PHONE_W,
        "decode_j": _PHONE_W,
        "text_j": _PHONE_W,
    }
    | _RADIO,
)
EDGE_SERVER = DeviceProfile(
    name="edge server with one data-centre GPU",
    model="Stable Diffusion v1-4, 512 px",
    step_s=0.05,
    step_j=15.0,
    text_s=0.01,
    text_j=3.0,
    decode_s=0.1,
    decode_j=30.0,
    tx_power_w=1.0,
    amplifier_efficiency=0.35,
    circuit_w=5.0,
    receive_w=1.0,
    sources=dict.fromkeys(
        ("step_s", "text_s", "decode_s"), "assumed: 20 steps a second at 512 px with guidance"
    )
    | dict.fromkeys(("step_j", "text_j", "decode_j"), "assumed: 300 W while it computes")
    | {
        "tx_power_w": "assumed: 30 dBm, a small cell",
        "amplifier_efficiency": "assumed: 0.35",
        "circuit_w": "assumed: 5 W",
        "receive_w": "assumed: 1 W",
    },
)
