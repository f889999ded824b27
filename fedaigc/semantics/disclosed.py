"""What a device discloses of a prompt, in either space: concepts of the knowledge graph, or a node of an atlas."""

from fedaigc.bounds import MAX_SIGNATURE_CHARACTERS
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.policy import LEAST_FIRST, Policy
from fedaigc.semantics.signature import OpenSignature, Signature
from fedaigc.storage.bounded_json import read_json

Disclosed = Signature | NodeSignature


def read_signature(text: str) -> Signature | NodeSignature:
    """Parse the output of `to_json` of a signature of either space.

    Raises:
        ValueError: If the text is neither.
    """
    if '"atlas"' not in text[:MAX_SIGNATURE_CHARACTERS]:
        return Signature.from_json(text)
    if len(text) > MAX_SIGNATURE_CHARACTERS:
        raise ValueError(
            f"the signature has {len(text)} characters: expected at most {MAX_SIGNATURE_CHARACTERS}"
        )
    fields = read_json(text, max_characters=MAX_SIGNATURE_CHARACTERS, max_depth=1)
    if not isinstance(fields, dict) or set(fields) != {"atlas", "node", "highest"}:
        raise ValueError("invalid signature: expected the keys atlas, highest, node")
    if [type(fields[name]) for name in ("atlas", "node", "highest")] != [str, int, int]:
        raise ValueError("invalid signature: expected the hash of an atlas and two numbers")
    return NodeSignature(**fields)


def in_words(text: str) -> str:
    """Return what a signature in JSON discloses, in words.

    Example:
        >>> in_words('{"atlas":"0123456789abcdef","highest":3,"node":3}')
        'node 3 of atlas 0123456789abcdef'
    """
    try:
        signature = read_signature(text)
    except (ValueError, TypeError):
        return "something that this version cannot read"
    if isinstance(signature, NodeSignature):
        return signature.words
    return "the prompt itself" if isinstance(signature, OpenSignature) else f"“{signature.words}”"


def check_asked(signature: Disclosed | None, policy: Policy, *, nodes: bool) -> None:
    """Check that a signature discloses no more than was asked for.

    Args:
        signature: The signature of a reply.
        policy: The most disclosing policy that was asked for.
        nodes: Whether nodes of an atlas were asked for, in place of concepts.

    Raises:
        ValueError: If it is of the other space, or its policy discloses more.
    """
    if signature is None:
        return
    if isinstance(signature, NodeSignature) is not nodes:
        raise ValueError(f"a signature of another space: expected {'a node' if nodes else 'concepts'}")
    if isinstance(signature, Signature) and LEAST_FIRST.index(signature.policy) > LEAST_FIRST.index(policy):
        raise ValueError(f"a signature discloses more than the policy {policy.value!r} permits")
