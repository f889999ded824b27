"""Why another device of a cluster shares nothing with this one in a round, in words for the owner."""

from collections.abc import Sequence

from fedaigc.deployment.cluster.links import Link, Trouble
from fedaigc.deployment.cluster.offers import Offer, SignedOffer


def apart(own: Offer, offers: Sequence[SignedOffer], name: str) -> str:
    """Return why no prompt of two devices that both offered can share; "" if some might.

    Args:
        own: The offer of this device.
        offers: What the other one offered.
        name: The owner's name for the other one.
    """
    if len(offers) > 1:
        return f"{name} offered two different things, and is left out"
    theirs = offers[0].offer
    if theirs.shared_steps != own.shared_steps:
        return (
            f"{name} shares {theirs.shared_steps} steps, this device {own.shared_steps}: give all devices the same "
            "--shared-steps"
        )
    if theirs.plan != own.plan:
        return f"{name} draws otherwise: give all devices the same --model, --steps, --guidance, --size and --dtype"
    if theirs.space != own.space:
        return (
            f"{name} compares prompts in another way: give all devices the same --nodes and --atlas, or none"
        )
    return ""


def not_there(link: Link, said: str, trouble: tuple[Trouble, str] | None) -> str:
    """Return why a device made no offer.

    Args:
        link: The other device.
        said: What was wrong with what it sent; "" for nothing.
        trouble: What became of the last connection to it, and the error; None: it was never tried, or stands.
    """
    start = f"{link.name} did not come to this round: "
    if said:
        # it may quote what the other device sent
        return start + (said if said.isprintable() else ascii(said)[1:-1])
    if trouble is None:
        return f"{start}it offered nothing in time"
    kind, error = trouble
    if kind is Trouble.NOBODY:
        return f"{start}{error}: start it, or give its address as --with {link.name}=HOST:PORT"
    if kind is Trouble.STRANGER:
        return f"{start}at {link.address} is another one ({error}): give its address, or pair with it again"
    return f"{start}it ends the connection: pair it with this device, and name this device there with --with"


def other_round(theirs: int, own: int) -> str:
    """Return what is wrong with an offer of another round."""
    return f"it is in round {theirs}, this device in round {own}: give all devices the same --round"
