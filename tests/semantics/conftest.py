"""Strategies over the knowledge graph."""

from hypothesis import settings
from hypothesis import strategies as st

from fedaigc.semantics.concepts.taxonomy import Taxonomy

CONCEPTS = sorted(Taxonomy.load().graph)
concepts = st.sampled_from(CONCEPTS)
# no deadline: the first example imports networkx and scipy
law = settings(deadline=None)
