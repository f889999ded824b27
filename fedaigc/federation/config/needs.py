"""The extras of this project that a configuration needs."""

from fedaigc.extras import require_extra
from fedaigc.federation.config.run_config import FederationConfig


def require_extras(config: FederationConfig) -> None:
    """Refuse a run before it begins if it would lack a package later.

    Raises:
        MissingExtra: If a package is missing.
    """
    if config.generation.enabled and config.generation.link is not None:
        require_extra("radio", "the packets of `generation.link`")
    if config.rounds.tensorboard:
        require_extra("tensorboard", "the scalars of `rounds.tensorboard`")
