"""The fingerprint of a strategy's code: server and devices must run the same code, and records name it.

The fingerprint covers what the code does, not where it is stored or how it is described (`code_text`). A
strategy can move to another package, or describe its parameters by other types, and keep its fingerprint.
"""

from pathlib import Path

from fedaigc.strategy.carried import SUFFIX, carried_code
from fedaigc.strategy.code_files import code_of_file, code_of_modules
from fedaigc.strategy.flower.rule import FLOWER_STRATEGIES
from fedaigc.strategy.sources import strategy_module

# the modules that compute the rules based on Flower's own classes
FLOWER_MODULES = (
    "fedaigc.strategy.flower.iterated_krum",
    "fedaigc.strategy.flower.no_nodes",
    "fedaigc.strategy.flower.privacy",
    "fedaigc.strategy.flower.rule",
    "fedaigc.strategy.secret_noise",
)


def strategy_code(strategy: str) -> str:
    """Return the fingerprint of a strategy's code.

    It covers the rule's module and the built-in strategies that it imports. For Flower's strategies it covers
    the modules that adapt them.

    Raises:
        UserError: If the strategy is unknown.
    """
    if strategy in FLOWER_STRATEGIES:
        return code_of_modules(FLOWER_MODULES)
    if strategy.endswith(SUFFIX):
        return carried_code(Path(strategy))
    file = Path(str(strategy_module(strategy).__file__))
    return code_of_file(file)
