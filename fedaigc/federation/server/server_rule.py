"""Creation of the strategy's server half from the configuration of a run."""

from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.strategy.flower.rule import ROBUST_STRATEGIES
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Rule


def server_rule(config: FederationConfig) -> Rule:
    """Return the server half of the run's strategy.

    Raises:
        UserError: As `load_strategy`, if the strategy is not robust but the configuration sets attackers, or if
            a round has too few clients for this number of attackers.
    """
    section = config.rounds
    rule = load_strategy(section.strategy, section.options)
    rule.seed, rule.num_clients = config.seed, config.num_clients
    rule.clients_per_round = section.clients or config.num_clients
    if section.attackers:
        if not rule.robust:
            raise UserError(
                f"rounds.attackers is {section.attackers}, but the strategy {section.strategy!r} withstands "
                f"none: leave it at 0, or choose one of {', '.join(ROBUST_STRATEGIES)}"
            )
        rule.withstand(section.attackers)
    return rule
