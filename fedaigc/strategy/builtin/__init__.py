"""The built-in strategies, one paper per module, e.g. `fedaigc.strategy.builtin.fedit`.

In a checkout they are the files of the top-level folder `strategies/`; a wheel holds them in this folder.
"""

from pathlib import Path

_CHECKOUT = Path(__file__).parents[3] / "strategies"

if not (Path(__file__).parent / "fedit.py").exists():
    __path__.append(str(_CHECKOUT))
