"""The prompts that the attacker considers possible, and what it can compute about them without any message.

The 720 plain prompts of Scenes (24 objects, 3 relations, 10 places), each with one of 22 modifiers or none, are 16,560
candidates. The attacker has the base model and therefore knows the text embeddings of all candidates.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.pretrain.recipe import MODIFIERS as TRAINED_MODIFIERS
from fedaigc.data.scene_words import OBJECT_NOUNS, OBJECTS, PLACE_NOUNS, PLACES, RELATIONS
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

# the modifiers of pre-training, and ten others
MODIFIERS = (
    *TRAINED_MODIFIERS,
    "red",
    "wet",
    "tall",
    "dark",
    "cute",
    "pink",
    "plain",
    "soft",
    "young",
    "dry",
)
_BATCH = 720


def candidates() -> list[str]:
    """Return all prompts that the attacker considers possible, the plain ones first."""
    prompts = []
    for modifier in (None, *MODIFIERS):
        for word in OBJECTS:
            noun = OBJECT_NOUNS[OBJECTS.index(word)]
            thing = noun.phrase
            if modifier is not None:
                article = "an" if modifier[0] in "aeiou" else "a"
                thing = f"{article} {modifier} {noun.word}"
            for relation in RELATIONS:
                prompts += [
                    f"{thing} {relation} {PLACE_NOUNS[PLACES.index(place)].phrase}" for place in PLACES
                ]
    return prompts


def draw_secrets(prompts: list[str], count: int, seed: int) -> list[int]:
    """Draw the indices of `count` different private prompts, with equal probabilities."""
    return [int(index) for index in numpy_rng(seed, "secrets").choice(len(prompts), count, replace=False)]


@dataclass(frozen=True)
class Guess:
    """The result of the signature alone.

    Attributes:
        classes: One number per candidate. Candidates with equal numbers have equal signatures.
        names: The signature of each number as JSON, or "" for none.
        chance: Probability of drawing the true prompt among the candidates with its signature, which is the number
            of classes divided by that of candidates.
        bits: The entropy of the signature.
    """

    chance: float
    bits: float
    classes: list[int]
    names: list[str]


def by_signature(prompts: list[str], policy: Policy = Policy.KIND, min_public_prompts: int = 3) -> Guess:
    """Return what the signature that a device of this policy discloses reveals about the candidates."""
    taxonomy = Taxonomy.load()
    texts = []
    for prompt in prompts:
        disclosed = disclose(parse(prompt, taxonomy), policy, taxonomy, min_public_prompts)
        texts.append("" if disclosed is None else disclosed.to_json())
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    shares = np.array(list(Counter(texts).values())) / len(texts)
    bits = float(-(shares * np.log2(shares)).sum())
    return Guess(len(numbers) / len(texts), bits, [numbers[text] for text in texts], list(numbers))


def text_embeddings(pipe: Pipeline, prompts: list[str]) -> Float[Tensor, "n tokens width"]:
    """Return the text encoder's output for each prompt, as cross-attention receives it."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(prompts), _BATCH):
            chosen = prompts[start : start + _BATCH]
            embedded, _ = pipe.encode_prompt(chosen, pipe._execution_device, 1, False)
            parts.append(embedded.float().cpu())
    return torch.cat(parts)
