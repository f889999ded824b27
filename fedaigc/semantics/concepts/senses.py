"""Choose the meaning of a noun in a prompt: from a curated list, or by what can be an object or a place.

WordNet orders senses by their frequency in texts. Texts use figures of speech that no one draws: the first
sense of tiger is a fierce person, the first sense of plate a part of a roof.
"""

from functools import cache
from types import MappingProxyType

from fedaigc.semantics.concepts.taxonomy import ROOT, Taxonomy
from fedaigc.semantics.concepts.vocabulary import Role, public_nouns

ANIMAL = "n00015568"
ARTIFACT = "n00022119"
BODY_OF_WATER = "n09248053"
FOOD = "n07571428"
NUTRIENT = "n00021445"
GEOLOGICAL_FORMATION = "n09310874"
LOCATION = "n00027365"
LAND = "n09357302"
MEAT = "n07665463"
NATURAL_OBJECT = "n00019308"
PERSON = "n00007846"
PLANT = "n00017402"
PLANT_PART = "n13107668"
SEAFOOD = "n07792842"

# kinds of objects and places that are usual in prompts, preferred over any other physical thing
_USUAL = {
    Role.OBJECT: (ANIMAL, ARTIFACT, FOOD, NUTRIENT, PLANT, PERSON, NATURAL_OBJECT),
    Role.PLACE: (ARTIFACT, GEOLOGICAL_FORMATION, BODY_OF_WATER, LAND, LOCATION, NATURAL_OBJECT, PLANT),
}

# (loser, winner), regardless of WordNet's order: a tiger is not a fierce person, an octopus not meat, and a
# banana not a plant
_YIELDS = (
    (PERSON, ANIMAL),
    (MEAT, ANIMAL),
    (SEAFOOD, ANIMAL),
    (PLANT, FOOD),
    (PLANT, NUTRIENT),
    (PLANT_PART, FOOD),
    (PLANT_PART, NUTRIENT),
)

CURATED_SENSES: dict[str, str] = {
    "adult": "n09628463",  # a fully developed person from maturity onward
    "alpaca": "n02440903",  # domesticated llama with long silky fleece
    "anemone": "n01917250",  # marine polyps that resemble flowers but have oral rings
    "baby": "n09846929",  # a very young child (birth to 1 year) who has not yet begun
    "bag": "n02777157",  # a container used for carrying money and small personal
    "bar": "n02792510",  # a counter where you can obtain food or drink
    "barrel": "n02798192",  # a cylindrical container that holds liquids
    "boa": "n01744584",  # any of several chiefly tropical constrictors with
    "bow": "n02883550",  # a decorative interlacing of ribbons
    "bowl": "n02884182",  # a dish that is round and open at the top for serving foods
    "boxer": "n02110741",  # a breed of stocky medium-sized short-haired dog with a
    "bridge": "n02901994",  # a structure that allows people or vehicles to cross an
    "cabin": "n02935784",  # a small house built of wood
    "cake": "n07644479",  # baked goods made from or based on a mixture of flour,
    "calculator": "n02942270",  # a small machine that is used for mathematical
    "castle": "n02983900",  # a large building formerly occupied by a ruler and
    "chest": "n03018359",  # box with a lid
    "child": "n09937051",  # a young person of either sex
    "coach": "n02927500",  # a vehicle carrying many passengers
    "cod": "n02525030",  # major food fish of Arctic and cold-temperate waters
    "coral": "n01918452",  # marine colonial polyp characterized by a calcareous
    "cork": "n03113504",  # the plug in the mouth of a bottle (especially a wine
    "crane": "n03131358",  # lifts and moves heavy objects
    "crater": "n09282125",  # a bowl-shaped depression formed by the impact of a
    "crown": "n03143320",  # an ornamental jeweled headdress signifying sovereignty
    "cushion": "n03156166",  # a soft bag filled with air or a mass of padding such as
    "date": "n07781049",  # sweet edible fruit of the date palm with a single long
    "diamond": "n14858733",  # very hard native crystalline carbon valued as a gem
    "diver": "n10039277",  # someone who works underwater
    "dock": "n03939805",  # a platform built out from the shore into the water and
    "dolphin": "n02071627",  # any of various small toothed whales with a beaklike snout
    "doormat": "n03228002",  # a mat placed outside an exterior door for wiping the shoes
    "dresser": "n03018908",  # furniture with drawers for keeping clothes
    "egg": "n07856780",  # oval reproductive body of a fowl (especially a hen) used
    "emperor": "n10072812",  # the male ruler of an empire
    "eye": "n05318579",  # the organ of sight
    "foot": "n05570899",  # the part of the leg of a human being below the ankle joint
    "ghost": "n09569105",  # the visible disembodied soul of a dead person
    "glass": "n03443167",  # a container made of glass for holding liquids while
    "globe": "n03445436",  # a sphere on which a map (especially of the earth) is
    "hammer": "n03486255",  # a hand tool with a heavy rigid head and a handle
    "hand": "n05572223",  # the (prehensile) extremity of the superior limb
    "heart": "n05396148",  # the hollow muscular organ located behind the sternum and
    "hook": "n03537852",  # a mechanical device that is curved or bent to suspend or
    "host": "n10206749",  # a person who invites guests to a social event (such as a
    "ice": "n14939335",  # water frozen in the solid state
    "iron": "n03589998",  # home appliance consisting of a flat metal base that is
    "kid": "n09937051",  # a young person of either sex
    "killer": "n10250784",  # someone who causes the death of a person or animal
    "kiwi": "n07779605",  # fuzzy brown egg-shaped fruit with slightly tart green
    "light": "n03670692",  # any device serving as a source of illumination
    "log": "n14966900",  # a segment of the trunk of a tree when stripped of branches
    "mailbox": "n03995432",  # public box for deposit of mail
    "man": "n10306910",  # an adult person who is male (as opposed to a woman)
    "microwave": "n03766619",  # kitchen appliance that cooks food by passing an
    "monitor": "n03787723",  # display produced by a device that takes signals and
    "monster": "n10349658",  # a cruel wicked and inhuman person
    "mug": "n03802912",  # with handle and usually cylindrical
    "needle": "n03821676",  # a sharp pointed implement (usually steel)
    "net": "n03825534",  # a trap made of netting to catch fish or birds or insects
    "organ": "n03859585",  # wind instrument whose sound is produced by means of pipes
    "painter": "n10411352",  # an artist who paints
    "park": "n08632949",  # a piece of open land for recreational use in an urban area
    "peacock": "n01808784",  # male peafowl
    "pirate": "n10455134",  # someone who robs at sea or plunders the land from the sea
    "pitcher": "n03956504",  # an open vessel with a handle and a spout for pouring
    "plate": "n03965779",  # dish on which food is served or from which food is eaten
    "printer": "n04011143",  # (computer science) an output device that prints the results
    "queen": "n10518940",  # a female sovereign ruler
    "rake": "n04057178",  # a long-handled tool with a row of teeth at its head
    "ram": "n02414726",  # uncastrated adult male sheep
    "ray": "n01498342",  # cartilaginous fishes having horizontally flattened bodies
    "recorder": "n03348200",  # a tubular wind instrument with 8 finger holes and a
    "ring": "n04099721",  # jewelry consisting of a circlet of precious metal (often
    "rose": "n12640957",  # any of many shrubs of the genus Rosa that bear roses
    "ruler": "n04125870",  # measuring stick consisting of a strip of wood or metal or
    "runner": "n10562318",  # someone who travels on foot by running
    "scale": "n04149040",  # a measuring instrument for weighing
    "screw": "n04160812",  # a fastener with a tapered threaded shank and a slotted
    "seal": "n02078848",  # any of numerous marine mammals that come on shore to
    "shell": "n01906397",  # hard outer covering or case of certain organisms such as
    "slug": "n01948326",  # any of various terrestrial gastropods having an elongated
    "soldier": "n10641415",  # an enlisted man or woman who serves in an army
    "speaker": "n03696785",  # electro-acoustic transducer that converts electrical
    "stand": "n04308138",  # a small table for holding articles of various kinds
    "swing": "n04378861",  # mechanical device used as a plaything to support someone
    "taco": "n07896726",  # a tortilla rolled cupped around a filling
    "tank": "n04396120",  # an enclosed armored military vehicle
    "toaster": "n04449446",  # a kitchen appliance (usually electric) for toasting bread
    "toilet": "n04453655",  # a plumbing fixture for defecation and urination
    "tooth": "n05290245",  # hard bonelike structures in the jaws of vertebrates
    "track": "n04471218",  # a pair of parallel rails providing a runway for wheels
    "trunk": "n04499064",  # luggage consisting of a large strong case used when
    "turtle": "n01665425",  # any of various aquatic and land reptiles having a bony
    "violet": "n12408356",  # any of numerous low-growing violas with small flowers
    "wing": "n02154277",  # a movable organ for flying (one of a pair)
    "witch": "n10075105",  # a female sorcerer or magician
    "worker": "n09655706",  # a person who works at a specific occupation
    "yard": "n04618236",  # the enclosed land around a house or other building
}

# nouns without a drawable sense in WordNet, or with a sense other than what an image of them shows
ALIASES: dict[str, str] = {
    "cellphone": "n04408223",  # telephone
    "dragon": "n00015568",  # animal
    "gift": "n03876761",  # package
    "grass": "n08587527",  # field
    "grassland": "n08587527",  # field
    "meadow": "n08587527",  # field
    "nightstand": "n04308138",  # stand, a small table
    "notebook": "n02873453",  # book
    "pasture": "n08587527",  # field
    "people": "n00007846",  # person
    "present": "n03876761",  # package
    "smartphone": "n04408223",  # telephone
    "unicorn": "n01864419",  # mammal
}


def resolve(noun: str, role: Role, taxonomy: Taxonomy) -> str | None:
    """Return the concept that a singular noun means in a prompt, or None for an unknown noun.

    The sources are, in this order: the public vocabulary, the curated senses, and WordNet. WordNet's first
    sense that is a usual object (or place) is taken, unless it yields to another.

    Args:
        noun: A noun in the singular.
        role: The role of the noun in the prompt.
        taxonomy: The knowledge graph.
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
    # "a thing" and "a place" are the root here and carry no meaning, so WordNet's senses apply
    known = {word: concept for word, concept in public.items() if concept != ROOT}
    return MappingProxyType(ALIASES | CURATED_SENSES | known)
