"""The header of a packet: its keys, their types and their ranges. Nothing else writes or reads them.

The header is canonical JSON: keys ascending, no blanks, no NaN.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedaigc.bounds import MAX_HISTORY_ENTRIES, MAX_PACKET_HEADER_BYTES
from fedaigc.errors import PacketError
from fedaigc.storage.bounded_json import read_json

Handoff = Literal["exact", "latents"]

_STREAM = frozenset(["noise_seed", "draw_count"])
# keys that a packet may lack
_OPTIONAL = frozenset(["settings"]) | _STREAM
_TEXTS = frozenset(["plan", "base", "shared", "body_sha256", "settings"])
# ranges of numbers, of which the plan bounds `step` and `draw_count` further
_RANGES = {
    "step": (0, 2**31),
    "body_bytes": (1, 2**40),
    "noise_seed": (-(2**63), 2**64 - 1),
    "draw_count": (0, 2**33),
}


@dataclass(frozen=True)
class PacketHeader:
    """The header of a packet.

    Attributes:
        plan: Fingerprint of the plan.
        base: Fingerprint of the base model.
        shared: Hash of the shared state; "" without one.
        handoff: The hand-off mode. With "latents" the history is empty.
        step: Step that the receiver runs next.
        latents: Form of the latents in the body, see `packet`.
        history: Running values of the scheduler by name: small ones as they are, of tensors in the body the form.
        body_bytes: Length of the body.
        body_sha256: SHA-256 of the body, in hex.
        noise_seed: Seed of the noise; None in a packet without a noise stream.
        draw_count: Number of draws from it so far; None in a packet without a noise stream.
        settings: `model_settings` of the sender as text; None where a message has them.
    """

    plan: str
    base: str
    shared: str
    handoff: Handoff
    step: int
    latents: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)
    body_bytes: int = 0
    body_sha256: str = ""
    noise_seed: int | None = None
    draw_count: int | None = None
    settings: str | None = None

    def to_json(self) -> bytes:
        """Return the header as it is written, without the optional keys that are None."""
        values = {
            name: value for name, value in vars(self).items() if value is not None or name not in _OPTIONAL
        }
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "PacketHeader":
        """Invert `to_json`.

        Raises:
            PacketError: If the text is no object with exactly these keys, or a value has another type or lies outside
                of its range.
        """
        try:
            values = read_json(text.decode(), max_characters=MAX_PACKET_HEADER_BYTES)
        except ValueError as error:
            raise PacketError(f"the header is not valid JSON: {error!s:.200}") from None
        if not isinstance(values, dict):
            raise PacketError(f"the header is a {type(values).__name__}, expected an object")
        needed = cls.__dataclass_fields__.keys() - _OPTIONAL
        if values.keys() - {"settings"} not in (needed, needed | _STREAM):
            raise PacketError(f"the header has {sorted(values)!a:.200}: expected {', '.join(sorted(needed))}")
        for name in _TEXTS & values.keys():
            if type(values[name]) is not str:
                raise PacketError(f"the header's {name} is {values[name]!r:.40}: expected a text")
        if values["handoff"] not in ("exact", "latents"):
            raise PacketError(f"the header's handoff is {values['handoff']!r:.40}: expected exact or latents")
        for name in _RANGES.keys() & values.keys():
            _check_number(name, values[name], *_RANGES[name])
        latents, history = values["latents"], values["history"]
        if not isinstance(latents, dict):
            raise PacketError(f"the header's latents are {latents!r:.40}: expected an object")
        if not isinstance(history, dict) or (values["handoff"] == "latents" and history):
            raise PacketError(
                "the header's history is not an object, or it accompanies a hand-off of latents"
            )
        if len(history) > MAX_HISTORY_ENTRIES:
            raise PacketError(f"invalid history: expected an object of at most {MAX_HISTORY_ENTRIES} values")
        return cls(**values)

    def check_steps(self, num_steps: int) -> None:
        """Check the numbers that a plan bounds: beyond them, this machine would compute more than a run of the plan.

        Args:
            num_steps: Number of steps of the plan.

        Raises:
            PacketError: If the step or the number of draws lies beyond the plan.
        """
        _check_number("step", self.step, 0, num_steps)
        if self.draw_count is not None:
            # the initial noise, and at most 4 draws per step (`windowed_scheduler`)
            _check_number("draw_count", self.draw_count, 0, 1 + 4 * num_steps)


def _check_number(name: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise PacketError(f"the header's {name} is {value!r:.40}: expected {low} to {high}")
