"""The knowledge graph, read once, and strategies over it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from fedaigc.semantics.taxonomy import Taxonomy

CONCEPTS = sorted(Taxonomy.load().graph)
concepts = st.sampled_from(CONCEPTS)
# no deadline: the first example imports networkx and scipy
law = settings(deadline=None)


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    return Taxonomy.load()
