"""The closed classes of English words that the parser uses. Nouns are in the knowledge graph."""

from fedaigc.semantics.concepts.vocabulary import Relation


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("""
    a an the some any this that these those my your his her its our their one two three four five six seven
    eight nine ten several many few
""")

# "in", "at", "by", "along" and "across" often begin something else, so the parser checks them further
_RELATIONS = {
    Relation.ON: ("on", "upon", "onto", "atop", "on top of", "along", "across", "in", "in the middle of"),
    Relation.NEAR: (
        *("near", "nearby", "near to", "beside", "by", "next to", "close to", "adjacent to", "alongside"),
        *("against", "at"),
    ),
    Relation.ABOVE: ("above", "over", "high above", "up above"),
}
RELATIONS: dict[tuple[str, ...], Relation] = {
    tuple(phrase.split()): relation for relation, phrases in _RELATIONS.items() for phrase in phrases
}
AMBIGUOUS = _words("in at by along across")

# these introduce a detail of the noun before them. The search for a relation continues after it
DETAILS = _words("""
    with without of for from like as about during wearing holding carrying having including featuring
    containing full
""")

# relations outside of the closed vocabulary. A prompt that places its object with one of them runs alone
UNKNOWN_RELATIONS = _words("""
    under underneath below beneath behind between among amid inside within into outside through throughout
    beyond around past opposite off down up towards toward
""")
UNKNOWN_RELATION_PHRASES = (("in", "front", "of"), ("in", "back", "of"), ("on", "the", "back", "of"))

AUXILIARIES = _words("is are was were")
# verbs between an object and its preposition. The parser recognizes -ing and -ed forms by their endings
VERBS = AUXILIARIES | _words("""
    be being been sits sit sat stands stand stood lies lie lay rests rest hangs hang hung sleeps sleep slept
    flies fly flew floats float hovers hover swims swim swam runs run ran walks walk jumps jump leans lean
    stays stay waits wait grows grow grown made seen lit shown set left held kept bound built driven ridden
    thrown worn rides ride rode plays play eats eat ate looks look looking
""")
CONJUNCTIONS = _words("and or but while which who whose that where when")

# adjectives and adverbs that may follow their noun
TRAILING = _words("""
    alone asleep awake alive ajar afloat ablaze alight outside outdoors indoors together alike open closed
    there here upright below high quietly peacefully happily
""")

# "a photo of", "a close up of": the drawn object follows
DEPICTIONS = _words("""
    photo photos photograph picture image painting drawing illustration sketch render rendering portrait
    watercolor watercolour closeup up view shot icon emoji cartoon print poster depiction scene snapshot
    artwork art animation engraving still
""")
# "a pair of shoes": the noun after "of" is the object
MEASURES = _words("""
    pair couple group bunch pile heap stack row lot number dozen handful slice piece chunk flock herd pack
    swarm school crowd cluster bouquet set collection variety kind type sort
""")
# "on the edge of a table": the place is the noun after "of"
PARTS = _words("""
    top edge side middle center centre corner end surface back rest bank shore slope bottom foot tip arm
    branch
""")

# irregular plurals
IRREGULAR_PLURALS = {
    "buses": "bus",
    "cacti": "cactus",
    "children": "child",
    "dice": "die",
    "feet": "foot",
    "fungi": "fungus",
    "geese": "goose",
    "hippopotami": "hippopotamus",
    "lice": "louse",
    "mice": "mouse",
    "octopi": "octopus",
    "oxen": "ox",
    "people": "person",
    "teeth": "tooth",
}
# ending of a plural -> ending of the singular. The first that yields a known noun is taken
PLURAL_ENDINGS = (
    ("ies", "y"),
    ("ves", "f"),
    ("ves", "fe"),
    ("men", "man"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("sses", "ss"),
    ("xes", "x"),
    ("zes", "z"),
    ("oes", "o"),
    ("s", ""),
    ("es", ""),
)
