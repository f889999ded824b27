"""All small families by name, the same at every call."""

from collections.abc import Callable

import torch

from tests.diffusion.families.auto_families import AUTO_FAMILIES
from tests.diffusion.families.family import Family
from tests.diffusion.families.further_families import FURTHER_FAMILIES
from tests.diffusion.families.later_families import LATER_FAMILIES
from tests.diffusion.families.own_call_families import OWN_CALL_FAMILIES
from tests.diffusion.families.small_families import FIRST_FAMILIES

# in the order in which they were added: the place of a family is the seed of its weights
SMALL_FAMILIES: dict[str, Callable[[], Family]] = {
    each.__name__: each
    for each in (*FIRST_FAMILIES, *FURTHER_FAMILIES, *LATER_FAMILIES, *AUTO_FAMILIES, *OWN_CALL_FAMILIES)
}


def small_family(name: str) -> Family:
    """Return a family of `SMALL_FAMILIES`, with the same weights at every call."""
    torch.manual_seed(list(SMALL_FAMILIES).index(name))
    family = SMALL_FAMILIES[name]()
    family.pipe.set_progress_bar_config(disable=True)
    return family
