"""The cost of a home's images on this device: denoising steps, and energy by a device profile."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedaigc.device.home.gallery import Finished
from fedaigc.device.home.home import Home
from fedaigc.device.shared_work import SharedWork
from fedaigc.errors import UserError
from fedaigc.wireless.profiles import PHONE, DeviceProfile, read_profile

PROFILE = "profile.json"
_LEFT_OUT = "Training and the radio are not counted."


@dataclass(frozen=True)
class Sums:
    """Totals over the finished images of a home.

    Energies include text encoding and decoding, but not the radio.

    Attributes:
        pictures: Number of finished images.
        own_steps: Denoising steps run here for its own images.
        shared_steps: Denoising steps run here for its groups.
        solo_steps: Denoising steps that the same images take alone.
        energy_j: Energy of `own_steps` and `shared_steps` in joules.
        solo_energy_j: Energy of `solo_steps` in joules.
        strip_j: Further energy for decoding the intermediate images, in joules.
    """

    pictures: int
    own_steps: int
    shared_steps: int
    solo_steps: int
    energy_j: float
    solo_energy_j: float
    strip_j: float

    @property
    def saved_steps(self) -> int:
        """Steps saved by sharing; negative on a device that ran more steps for its groups than it saved."""
        return self.solo_steps - self.own_steps - self.shared_steps

    @property
    def saved_j(self) -> float:
        """Energy saved by sharing, in joules; may be negative too."""
        return self.solo_energy_j - self.energy_j


def sums(entries: Sequence[Finished], work: Iterable[SharedWork], profile: DeviceProfile) -> Sums:
    """Add up the cost of the images, of the groups, and of the same images alone.

    Args:
        entries: The finished images.
        work: The shared steps that the device ran for its groups.
        profile: Energy per step, text encoding and decoding.
    """
    own = [entry.num_steps - entry.received_step for entry in entries]
    helped = [done.steps for done in work]
    return Sums(
        pictures=len(entries),
        own_steps=sum(own),
        shared_steps=sum(helped),
        solo_steps=sum(entry.num_steps for entry in entries),
        energy_j=sum(map(profile.image_j, own)) + sum(map(profile.shared_j, helped)),
        solo_energy_j=sum(profile.image_j(entry.num_steps) for entry in entries),
        strip_j=sum(len(entry.strip_steps) for entry in entries) * profile.decode_j,
    )


def profile_of(home: Home) -> tuple[DeviceProfile, bool, list[Path]]:
    """Return the profile to use, whether it is this device's own, and its file if that is damaged."""
    path = home.root / PROFILE
    if not path.exists():
        return PHONE, False, []
    try:
        profile = read_profile(path)
        # Python's JSON reader accepts infinity
        if not math.isfinite(profile.image_j(1)):
            return PHONE, False, [path]
    except (UserError, AttributeError):
        return PHONE, False, [path]
    return profile, True, []


def profile_words(profile: DeviceProfile, own: bool) -> str:
    """Describe for the owner where the energy figures come from."""
    about = f"{profile.step_j:.3g} J a step of {profile.model} ({profile.sources['step_j']})"
    if own:
        return f"Counted with this device's own profile: {about}. {_LEFT_OUT}"
    return (
        f"Assumed, not measured here: counted as if this device were the {profile.name}, {about}. "
        f"{_LEFT_OUT} `fedaigc profile --output HOME/{PROFILE}` measures this machine, and the page then "
        "counts with that."
    )
