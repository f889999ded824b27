"""What was disclosed of a prompt, in plain words."""

from fedaigc.device.prompts import Task, TaskStatus
from fedaigc.semantics.public import Role, drawn_nouns, public_nouns, render_prompt
from fedaigc.semantics.signature import OpenSignature, Signature
from fedaigc.semantics.taxonomy import ROOT


def disclosed_words(task: Task, received_step: int | None) -> str:
    """One sentence or two for the owner. received_step: of the finished picture, None where there is none."""
    if task.disclosed is None:
        if task.status is TaskStatus.WAITING:
            return "Nothing so far."
        return "Nothing: it ran alone." if received_step == 0 else "Nothing."
    try:
        signature = Signature.from_json(task.disclosed)
    except (ValueError, TypeError, AttributeError):
        return f"What was sent cannot be read here: {task.disclosed}"
    alone = " It found no group and ran alone." if received_step == 0 else ""
    if isinstance(signature, OpenSignature):
        return f"The whole prompt, word for word: the policy is “open”.{alone}"
    words = render_prompt(signature.object, signature.relation, signature.place)
    parts = "; ".join(
        (
            _part(Role.OBJECT, signature.object),
            f"how it stands, “{signature.relation.value}”",
            _part(Role.PLACE, signature.place),
        )
    )
    return f"“{words}”, by the policy “{signature.policy.value}”: {parts}. Nothing else.{alone}"


def _part(role: Role, concept: str) -> str:
    phrase = public_nouns(role)[concept].phrase
    if concept == ROOT:
        return f"of the {role.value} only that there is one"
    return (
        f"the {role.value} as {'the public' if concept in drawn_nouns(role) else 'a general'} word “{phrase}”"
    )
