"""The most that was ever disclosed of a prompt, in plain language."""

from collections.abc import Sequence

from fedaigc.device.home.prompts import Task, TaskStatus
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.disclosed import Disclosed, read_signature
from fedaigc.semantics.signature import OpenSignature
from fedaigc.semantics.wording import signature_words

_NO_MORE = "Nothing else."


def disclosed_words(task: Task, received_step: int | None, *, compared: bool = False) -> str:
    """Describe for the owner what was disclosed of a prompt.

    If several signatures were disclosed and none of them contains all the others, each is described.

    Args:
        task: The task of the prompt.
        received_step: Step at which the finished image received its packet, 0 if it ran alone; None if there
            is no finished image.
        compared: Whether an equality test was answered for it.
    """
    if compared:
        said = _all_words(task.disclosed).replace(_NO_MORE, "").strip()
        return f"{said} Which other prompts that waited equal this one. {_NO_MORE}".strip()
    if not task.disclosed:
        if task.status is TaskStatus.WAITING:
            return "Nothing so far."
        return "Nothing: it ran alone." if received_step == 0 else "Nothing."
    alone = " It found no group and ran alone." if received_step == 0 else ""
    return f"{_all_words(task.disclosed)}{alone}"


def _all_words(disclosed: Sequence[str]) -> str:
    signatures: list[Disclosed] = []
    unreadable = []
    for text in disclosed:
        try:
            signatures.append(read_signature(text))
        except (ValueError, TypeError, AttributeError):
            unreadable.append(f"What was sent cannot be read here: {text}")
    sentences = [
        f"{each.words[:1].upper()}{each.words[1:]}"
        if isinstance(each, NodeSignature)
        else signature_words(each)
        for each in signatures
    ]
    said = "; and at another time ".join(sentences)
    whole = any(isinstance(signature, OpenSignature) for signature in signatures)
    # the unreadable signature may have disclosed more
    ending = [] if whole or unreadable else [_NO_MORE]
    return " ".join([*([f"{said}."] if said else []), *ending, *unreadable])
