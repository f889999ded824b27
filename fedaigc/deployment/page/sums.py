"""What the pictures of a home took here: denoising steps, and energy by a device profile."""

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
    """Over the finished pictures of a home.

    own_steps: run here for its own pictures. shared_steps: run here for its groups. solo_steps: what the same
    pictures take alone. energy_j, solo_energy_j: of the first two and of the last, text encoding and decoding
    included, the radio not. strip_j: what decoding the pictures of the way took besides.
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
        """By sharing; below zero on a device that ran more for its groups than it was spared."""
        return self.solo_steps - self.own_steps - self.shared_steps

    @property
    def saved_j(self) -> float:
        """By sharing, likewise."""
        return self.solo_energy_j - self.energy_j


def sums(entries: Sequence[Finished], work: Iterable[SharedWork], profile: DeviceProfile) -> Sums:
    """Add up what the pictures took, what the groups took, and what the pictures take alone."""
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
    """The profile to count with, whether it is this device's own, and its file if that is damaged."""
    path = home.root / PROFILE
    if not path.exists():
        return PHONE, False, []
    try:
        profile = read_profile(path)
        # JSON as Python reads it has infinity
        if not math.isfinite(profile.image_j(1)):
            return PHONE, False, [path]
    except (UserError, AttributeError):
        return PHONE, False, [path]
    return profile, True, []


def profile_words(profile: DeviceProfile, own: bool) -> str:
    """Where the joules come from, for the owner to judge them."""
    about = f"{profile.step_j:.3g} J a step of {profile.model} ({profile.sources['step_j']})"
    if own:
        return f"Counted with this device's own profile: {about}. {_LEFT_OUT}"
    return (
        f"Assumed, not measured here: counted as if this device were the {profile.name}, {about}. "
        f"{_LEFT_OUT} `fedaigc profile --output HOME/{PROFILE}` measures this machine, and the page then "
        "counts with that."
    )
