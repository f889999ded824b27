"""The knowledge graph: its shape, its laws, and similarities that were derived by hand."""

import gzip
import subprocess
import sys
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given

from fedaigc import assets
from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS
from fedaigc.semantics.concepts.taxonomy import ROOT, ROOT_DEPTH, Taxonomy
from fedaigc.semantics.concepts.vocabulary import Role, drawn_nouns, general_nouns, public_nouns
from tests.semantics.conftest import concepts, law

WORDS = {noun.word: noun.concept for noun in (*OBJECT_NOUNS, *PLACE_NOUNS)}
CONVEYANCE, CARNIVORE, VERTEBRATE, FURNITURE = "n03105141", "n02077948", "n01474323", "n03410635"

# a diamond with a long and a short side:  root > a > b > d,  root > c > d,  c > e
DIAMOND = Taxonomy(
    {ROOT: [], "a": [ROOT], "b": ["a"], "c": [ROOT], "d": ["b", "c"], "e": ["c"]}, {"dee": ["d", "e"]}
)


def test_depth_is_the_longest_path() -> None:
    # counted with "entity" above the root: root 2, a 3, b 4, c 3, d 5 (not 4, by way of c), e 4
    assert [DIAMOND.depth(concept) for concept in (ROOT, *"abcde")] == [2, 3, 4, 3, 5, 4]


def test_wu_palmer_on_the_diamond() -> None:
    assert DIAMOND.lowest_common_ancestor("d", "e") == "c"
    assert DIAMOND.wu_palmer("d", "e") == pytest.approx(2 * 3 / (5 + 4))
    assert DIAMOND.wu_palmer("b", "d") == pytest.approx(2 * 4 / (4 + 5))
    assert DIAMOND.wu_palmer("d", "e", among={ROOT, "a"}) == pytest.approx(2 * 2 / (5 + 4))


@pytest.mark.parametrize(
    ("a", "b", "meet", "depths"),
    [
        # entity > physical entity > object > whole > living thing > organism > animal > chordate >
        # vertebrate > mammal > placental > carnivore > canine > dog: 14; cat by way of feline: 14; they meet
        # at carnivore, 12. "domestic animal", dog's other parent, lies higher.
        ("dog", "cat", CARNIVORE, (14, 14, 12)),
        # bird is the 10th, directly below vertebrate, the 9th
        ("bird", "dog", VERTEBRATE, (10, 14, 9)),
        # ... object > whole > artifact > instrumentality > conveyance (7) > vehicle > wheeled vehicle >
        # self-propelled vehicle > motor vehicle > car: 12; > public transport > bus: 9
        ("car", "bus", CONVEYANCE, (12, 9, 7)),
        # ... instrumentality > furnishing > furniture (8) > table (9) > desk (10)
        ("table", "desk", WORDS["table"], (9, 10, 9)),
        # furniture (8) > bedroom furniture > bed (10)
        ("desk", "bed", FURNITURE, (10, 10, 8)),
    ],
)
def test_wu_palmer_derived_by_hand(
    taxonomy: Taxonomy, a: str, b: str, meet: str, depths: tuple[int, int, int]
) -> None:
    first, second, common = depths
    assert taxonomy.lowest_common_ancestor(WORDS[a], WORDS[b]) == meet
    assert (taxonomy.depth(WORDS[a]), taxonomy.depth(WORDS[b]), taxonomy.depth(meet)) == depths
    assert taxonomy.wu_palmer(WORDS[a], WORDS[b]) == pytest.approx(2 * common / (first + second))


def test_apple_and_lemon_meet_at_fruit(taxonomy: Taxonomy) -> None:
    # edible fruit (10) > apple (11) and > citrus (11) > lemon (12): 20 / 23. By first parents alone apple is
    # as deep as pome, and the similarity would exceed 1
    apple, lemon = WORDS["apple"], WORDS["lemon"]
    assert taxonomy.lowest_common_ancestor(apple, lemon) == "n07721676"
    assert taxonomy.wu_palmer(apple, lemon) == pytest.approx(2 * 10 / (11 + 12))


@law
@given(concepts, concepts)
def test_wu_palmer_laws(a: str, b: str) -> None:
    taxonomy = Taxonomy.load()
    similarity = taxonomy.wu_palmer(a, b)
    assert 0 < similarity <= 1
    assert similarity == taxonomy.wu_palmer(b, a)
    assert (similarity == 1) == (a == b)


@law
@given(concepts)
def test_every_concept_stands_below_the_root_and_its_ancestors(concept: str) -> None:
    taxonomy = Taxonomy.load()
    assert taxonomy.is_a(concept, ROOT)
    assert concept in taxonomy.lineage(concept)
    assert concept not in taxonomy.ancestors(concept)
    for above in taxonomy.ancestors(concept):
        assert taxonomy.depth(above) < taxonomy.depth(concept)
    assert taxonomy.lineage(concept) == nx.descendants(taxonomy.graph, concept) | {concept}


def test_graph_is_acyclic_and_small(taxonomy: Taxonomy) -> None:
    assert nx.is_directed_acyclic_graph(taxonomy.graph)
    assert 15_000 < len(taxonomy.graph) < 25_000
    assert taxonomy.depth(ROOT) == ROOT_DEPTH
    packed = assets.path("nouns.json.gz").read_bytes()
    assert len(packed) < 250_000
    assert b"WordNet 3.1" in gzip.decompress(packed)[:200]
    assert "Princeton University" in assets.path("licenses/WordNet.txt").read_text()


def test_senses_keep_the_order_of_wordnet(taxonomy: Taxonomy) -> None:
    # mouse: the rodent, a timid person, the device; a black eye, the other sense, is no concrete noun
    assert taxonomy.senses("mouse") == ("n02332897", "n10355276", "n03799022")
    # the first sense of table is a set of data
    assert taxonomy.senses("table")[0] == WORDS["table"]
    assert taxonomy.senses("Hot-Dog") == taxonomy.senses("hot dog") != ()
    assert taxonomy.senses("car") == taxonomy.senses("automobile")[:1] + taxonomy.senses("car")[1:]
    assert taxonomy.senses("freedom") == taxonomy.senses("") == taxonomy.senses("zorblax") == ()


def test_unknown_concept_is_named() -> None:
    for ask in (DIAMOND.depth, DIAMOND.lineage):
        with pytest.raises(ValueError, match="no concept 'n99999999'"):
            ask("n99999999")
    assert "n99999999" not in DIAMOND


@pytest.mark.parametrize("role", list(Role))
def test_public_words_form_a_chain_above_each_drawn_noun(taxonomy: Taxonomy, role: Role) -> None:
    assert ROOT in general_nouns(role)
    for concept in drawn_nouns(role):
        above = sorted(taxonomy.ancestors(concept) & public_nouns(role).keys(), key=taxonomy.depth)
        for general, special in pairwise(above):
            assert taxonomy.is_a(special, general)


def test_loading_needs_nothing_heavy_and_happens_once() -> None:
    code = (
        "import sys; from fedaigc.semantics.concepts.taxonomy import Taxonomy; "
        "assert not {'networkx', 'torch'} & set(sys.modules); Taxonomy.load(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Taxonomy.load() is Taxonomy.load()
