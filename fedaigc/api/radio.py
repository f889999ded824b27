"""A packet over the simulated radio link."""

from typing import Any

from fedaigc.collaboration.link import LinkReport, Member, SimulatedLink
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.errors import UserError
from fedaigc.validation import validated

# settings that the sender or the receiver of one packet does not have, and where they belong
_ELSEWHERE = {
    "number_format": "`Denoising.pack`",
    "repair": "`unpack`",
    "multicast": "`generate`, in `link`: they are for the members of a group",
    "send_above_db": "`generate`, in `link`: the sender goes on denoising while it waits",
    "wait_steps": "`generate`, in `link`: the sender goes on denoising while it waits",
}


def transmit(packet: bytes, *, seed: int = 0, **link: Any) -> tuple[bytes, LinkReport]:
    """Send a packet over the simulated radio link, and return it as it arrives.

    The header arrives without errors. `unpack` takes a damaged packet with `delivery="tolerant"` alone.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> plan = fa.plan(pipe, num_inference_steps=4)
        >>> begun = fa.start(pipe, plan, seed=1).run("a fruit on a table", until=2)
        >>> packet = begun.pack(number_format="fixed8-gray")
        >>> arrived, report = fa.transmit(packet, snr_db=9.0, scheme="uncoded-qpsk")
        >>> report.information_bits, report.bit_errors > 0
        (16384, True)
        >>> fa.unpack(pipe, plan, arrived, delivery="tolerant").finish("an apple on a table").size
        (64, 64)

    Args:
        packet: Result of `Denoising.pack`. Its number format is that of `pack`.
        seed: Seed of noise and fades.
        **link: Keys of the section `generation.link` of a configuration: `snr_db`, `distance_m` or
            `bit_error_rate`, and `scheme`, `bandwidth_hz`, `rayleigh`, `max_transmissions`, ... Without any of the
            first three, the channel is perfect.

    Returns:
        The received packet, and bits, errors, seconds and joules of its transmission.

    Raises:
        UserError: If a setting is wrong, or belongs elsewhere.
        PacketError: If the bytes are not a packet.
    """
    for name in link:
        if name in _ELSEWHERE:
            raise UserError(f"{name} is no setting of a single transmission: give it to {_ELSEWHERE[name]}")
    settings = validated(LinkSettings, link, "the link")
    if isinstance(settings.distance_m, tuple):
        raise UserError(
            f"distance_m is a list, {link['distance_m']}: one packet has one receiver; give a number"
        )
    receiver = Member("packet", client=0)
    return SimulatedLink(settings, seed).send({receiver: packet})[receiver]
