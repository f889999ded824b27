"""Which of a noun's meanings a prompt means: a few by hand, the others by what can be an object or a place.

WordNet orders senses by how often texts use them, and texts speak of figures of speech that no one draws: the
first tiger is a fierce person, the first plate a part of a roof.
"""

from functools import cache
from types import MappingProxyType

from fedaigc.semantics.public import Role, public_nouns
from fedaigc.semantics.taxonomy import ROOT, Taxonomy

ANIMAL = "n00015568"
ARTIFACT = "n00022119"
BODY_OF_WATER = "n09248053"
FOOD = "n07571428"
GEOLOGICAL_FORMATION = "n09310874"
LOCATION = "n00027365"
MEAT = "n07665463"
NATURAL_OBJECT = "n00019308"
PERSON = "n00007846"
PLANT = "n00017402"
PRODUCE = "n07721456"

# what a prompt's object or place usually is; any other physical thing comes after these
_USUAL = {
    Role.OBJECT: (ANIMAL, ARTIFACT, FOOD, PLANT, PERSON, NATURAL_OBJECT),
    Role.PLACE: (ARTIFACT, GEOLOGICAL_FORMATION, BODY_OF_WATER, LOCATION, NATURAL_OBJECT, PLANT),
}

# (what gives way, to what), whatever WordNet's order: a tiger is no fierce person, an octopus no meat, a
# banana no palm tree
_YIELDS = ((PERSON, ANIMAL), (MEAT, ANIMAL), (PLANT, PRODUCE))

CURATED_SENSES: dict[str, str] = {
    "adult": "n09628463",  # a fully developed person from maturity onward
    "baby": "n09846929",  # a very young child (birth to 1 year) who has not yet begun
    "bar": "n02792510",  # a counter where you can obtain food or drink
    "boxer": "n02110741",  # a breed of stocky medium-sized short-haired dog with a
    "bridge": "n02901994",  # a structure that allows people or vehicles to cross an
    "calculator": "n02942270",  # a small machine that is used for mathematical
    "chest": "n03018359",  # box with a lid
    "child": "n09937051",  # a young person of either sex
    "coach": "n02927500",  # a vehicle carrying many passengers
    "crane": "n03131358",  # lifts and moves heavy objects
    "crater": "n09282125",  # a bowl-shaped depression formed by the impact of a
    "diver": "n10039277",  # someone who works underwater
    "dock": "n03939805",  # a platform built out from the shore into the water and
    "doormat": "n03228002",  # a mat placed outside an exterior door for wiping the shoes
    "dresser": "n03018908",  # furniture with drawers for keeping clothes
    "emperor": "n10072812",  # the male ruler of an empire
    "glass": "n03443167",  # a container made of glass for holding liquids while
    "host": "n10206749",  # a person who invites guests to a social event (such as a
    "iron": "n03589998",  # home appliance consisting of a flat metal base that is
    "kid": "n09937051",  # a young person of either sex
    "killer": "n10250784",  # someone who causes the death of a person or animal
    "kiwi": "n07779605",  # fuzzy brown egg-shaped fruit with slightly tart green
    "light": "n03670692",  # any device serving as a source of illumination
    "man": "n10306910",  # an adult person who is male (as opposed to a woman)
    "microwave": "n03766619",  # kitchen appliance that cooks food by passing an
    "monitor": "n03787723",  # display produced by a device that takes signals and
    "monster": "n10349658",  # a cruel wicked and inhuman person
    "mug": "n03802912",  # with handle and usually cylindrical
    "painter": "n10411352",  # an artist who paints
    "peacock": "n01808784",  # male peafowl
    "pirate": "n10455134",  # someone who robs at sea or plunders the land from the sea
    "pitcher": "n03956504",  # an open vessel with a handle and a spout for pouring
    "plate": "n03965779",  # dish on which food is served or from which food is eaten
    "printer": "n04011143",  # (computer science) an output device that prints the results
    "queen": "n10518940",  # a female sovereign ruler
    "rake": "n04057178",  # a long-handled tool with a row of teeth at its head
    "ring": "n04099721",  # jewelry consisting of a circlet of precious metal (often
    "ruler": "n04125870",  # measuring stick consisting of a strip of wood or metal or
    "runner": "n10562318",  # someone who travels on foot by running
    "scale": "n04149040",  # a measuring instrument for weighing
    "screw": "n04160812",  # a fastener with a tapered threaded shank and a slotted
    "seal": "n02078848",  # any of numerous marine mammals that come on shore to
    "soldier": "n10641415",  # an enlisted man or woman who serves in an army
    "speaker": "n03696785",  # electro-acoustic transducer that converts electrical
    "stand": "n04308138",  # a small table for holding articles of various kinds
    "swing": "n04378861",  # mechanical device used as a plaything to support someone
    "taco": "n07896726",  # a tortilla rolled cupped around a filling
    "tank": "n04396120",  # an enclosed armored military vehicle
    "toaster": "n04449446",  # a kitchen appliance (usually electric) for toasting bread
    "witch": "n10075105",  # a female sorcerer or magician
    "worker": "n09655706",  # a person who works at a specific occupation
}

# nouns that WordNet has no drawable meaning for, or files elsewhere than under what a picture of them shows
ALIASES: dict[str, str] = {
    "cellphone": "n04408223",  # telephone
    "dragon": "n00015568",  # animal
    "gift": "n03876761",  # package
    "grass": "n08587527",  # field
    "grassland": "n08587527",  # field
    "nightstand": "n04308138",  # stand, a small table
    "notebook": "n02873453",  # book
    "people": "n00007846",  # person
    "present": "n03876761",  # package
    "smartphone": "n04408223",  # telephone
    "unicorn": "n01864419",  # mammal
}


def resolve(noun: str, role: Role, taxonomy: Taxonomy) -> str | None:
    """The concept that a singular noun means in a prompt, in this role; None for an unknown noun.

    In turn: a word of the public vocabulary, a sense chosen by hand, and of WordNet's senses the first that
    usually is an object (a place), unless it gives way to another.
    """
    curated = _curated().get(noun)
    if curated is not None:
        return curated
    senses = taxonomy.senses(noun)
    usual = [sense for sense in senses if any(taxonomy.is_a(sense, kind) for kind in _USUAL[role])]
    for loser, winner in _YIELDS:
        if role is Role.OBJECT and usual and taxonomy.is_a(usual[0], loser):
            usual = [sense for sense in usual if taxonomy.is_a(sense, winner)] or usual
    return next(iter((*usual, *senses)), None)


@cache
def _curated() -> MappingProxyType[str, str]:
    public = {noun.word: noun.concept for role in Role for noun in public_nouns(role).values()}
    # "a thing" and "a place" say nothing: they mean what WordNet says
    known = {word: concept for word, concept in public.items() if concept != ROOT}
    return MappingProxyType(ALIASES | CURATED_SENSES | known)
