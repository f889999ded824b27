"""What a device discloses of a prompt, in plain language for its owner, and what prevents it from sharing steps."""

import difflib
from dataclasses import dataclass

from fedaigc.semantics.concepts.parser import Obstacle, Part, obstacle, parse
from fedaigc.semantics.concepts.taxonomy import ROOT, Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, drawn_nouns, public_nouns, render_prompt
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import OpenSignature, Signature, disclose

_NEAREST = 3
_ROLES = {Part.OBJECT: Role.OBJECT, Part.PLACE: Role.PLACE}


@dataclass(frozen=True)
class Explanation:
    """What the server would see of a prompt. It stays on the device.

    Attributes:
        signature: What would be disclosed, or None if the prompt is drawn alone.
        seen: The same as a sentence.
        reason: Why it is drawn alone; empty if something is disclosed.
        instead: What to write or to set, so that it can share steps; empty if something is disclosed.
    """

    signature: Signature | None
    seen: str
    reason: str = ""
    instead: str = ""


def explain(prompt: str, policy: Policy, taxonomy: Taxonomy, min_public_prompts: int = 3) -> Explanation:
    """Return what a policy would disclose of a prompt, or what prevents it from sharing steps.

    Raises:
        UserError: If the prompt is empty or too long.
    """
    signature = disclose(parse(prompt, taxonomy), policy, taxonomy, min_public_prompts)
    if signature is not None:
        ending = "" if isinstance(signature, OpenSignature) else " Nothing else."
        return Explanation(signature, f"{signature_words(signature)}.{ending}")
    if policy is Policy.SILENT:
        reason, instead = "the policy “silent” discloses nothing", "another policy, such as “kind”"
    else:
        problem = obstacle(prompt, taxonomy)
        if problem is None:
            reason = f"Scenes has fewer than {min_public_prompts} objects or places that could be meant"
            instead = "fewer public prompts that must share a signature (3 by default)"
        else:
            reason, instead = _reason(problem), _instead(problem, taxonomy)
    return Explanation(
        None, "that a prompt waits, and nothing of what it says. It is drawn alone.", reason, instead
    )


def signature_words(signature: Signature) -> str:
    """Return what a signature discloses, without a full stop."""
    if isinstance(signature, OpenSignature):
        return "The whole prompt, word for word: the policy is “open”"
    words = render_prompt(signature.object, signature.relation, signature.place)
    parts = "; ".join(
        (
            _part(Role.OBJECT, signature.object),
            f"how it stands, “{signature.relation.value}”",
            _part(Role.PLACE, signature.place),
        )
    )
    return f"“{words}”, by the policy “{signature.policy.value}”: {parts}"


def _part(role: Role, concept: str) -> str:
    phrase = public_nouns(role)[concept].phrase
    if concept == ROOT:
        return f"of the {role.value} only that there is one"
    return (
        f"the {role.value} as {'the public' if concept in drawn_nouns(role) else 'a general'} word “{phrase}”"
    )


def _reason(problem: Obstacle) -> str:
    if problem.part is Part.RELATION:
        if problem.words in ("in", "at", "by", "along", "across"):
            return f"“{problem.words}” does not say here how the object stands to the place"
        return f"“{problem.words}” is none of the relations that can be disclosed"
    if not problem.words:
        return f"it names no {problem.part.value}"
    return f"“{problem.words}” is not in the knowledge graph"


def _instead(problem: Obstacle, taxonomy: Taxonomy) -> str:
    if problem.part is Part.RELATION:
        return " or ".join(f"“{relation.value}”" for relation in Relation)
    role = _ROLES[problem.part]
    drawn = sorted(noun.word for noun in drawn_nouns(role).values())
    near = nearest_nouns(problem.words, role, taxonomy) if problem.words else []
    if near:
        return " or ".join(f"“{word}”" for word in near)
    if role is Role.PLACE and not problem.words:
        return f"where it is, such as “on a table”; Scenes draws {', '.join(drawn)}"
    return f"a noun that is known; Scenes draws {', '.join(drawn)}"


def nearest_nouns(word: str, role: Role, taxonomy: Taxonomy) -> list[str]:
    """Return known nouns that are spelled like `word`, those of the public vocabulary first."""
    public = [noun.word for concept, noun in public_nouns(role).items() if concept != ROOT]
    single = [noun for noun in taxonomy.nouns() if " " not in noun]
    near = [
        *difflib.get_close_matches(word, public, n=_NEAREST, cutoff=0.7),
        *difflib.get_close_matches(word, single, n=_NEAREST, cutoff=0.8),
    ]
    return list(dict.fromkeys(near))[:_NEAREST]
