"""Run `fedaigc device start` on a device with canaries, which is honest or leaks them.

    python -m tools.deployment.canary_device WAY device start HOME ...

The taxonomy of the device has one additional word, a leaf below the apple. WAY is one of

    honest     an unmodified device
    failing    work fails with errors that quote prompts and captions
    failing offers
               so do answers to offers of hand-offs; of a prompt with the leaf also keys of sums and tags of
               equality tests
    leaking    replies contain each canary in each form

Key, SuperNode, relay, socket and home are the real ones.
"""

import base64
import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedaigc.cli import main as cli
from fedaigc.deployment.agent import agent, resident
from fedaigc.device import node_answers
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.device.home.prompts import PromptQueue, Task
from fedaigc.diffusion.encoding import encode_images, encode_text
from fedaigc.federation.client import equality, handlers, own_tasks, sums
from fedaigc.federation.wire.flat_arrays import array_of
from fedaigc.federation.wire.messages import ARRAYS, BODY, FAILURE, FLAT, METRICS, Ask, values_of
from fedaigc.semantics.concepts.taxonomy import Taxonomy

APPLE = "n07755101"
LEAF = "quixelberry"
LEAF_CONCEPT = "n99917213"
FAILING_ROUND = 2


def canary_taxonomy() -> Taxonomy:
    """Return the knowledge graph with a fictitious kind of apple."""
    known = _LOAD()
    hypernyms = {concept: list(known.graph.successors(concept)) for concept in known.graph}
    return Taxonomy(hypernyms | {LEAF_CONCEPT: [APPLE]}, {**known._senses, LEAF: (LEAF_CONCEPT,)})


_LOAD = Taxonomy.load


class Secrets:
    """The private content of a home, in the forms that a leaking device would send."""

    def __init__(self, home: Path, pipe: Any, size: int) -> None:
        opened = Home.open(home)
        self.prompt = PromptQueue(opened).all()[-1].prompt
        self.picture = ImageStore(opened).all()[0].image
        caption = ImageStore(opened).all()[0].caption
        self.token_ids = list(pipe.tokenizer(self.prompt, add_special_tokens=False).input_ids)
        self.embedding = encode_text(pipe, [self.prompt])["prompt_embeds"][0].numpy()
        encoded = encode_images(pipe, [self.picture], [caption], height=size, width=size)
        self.latents = encoded.latents[0].numpy()
        self.pixels = np.asarray(self.picture)


def _file(picture: Any, format: str) -> bytes:
    kept = io.BytesIO()
    picture.save(kept, format=format)
    return kept.getvalue()


def _longer(text: str) -> str:
    """Return a longer text, because zstd does not compress a short one, which would be found as plain text."""
    return " ".join((text, text[::-1], text.upper(), text.swapcase()[::-1]))


FORMS: dict[str, Callable[[Secrets], bytes]] = {
    "plain": lambda s: s.prompt.upper().encode(),
    "UTF-16": lambda s: s.prompt.encode("utf-16"),
    "base64": lambda s: base64.b64encode(b"?" + s.prompt.encode()),
    "hexadecimal": lambda s: s.prompt.encode().hex().encode(),
    "gzip": lambda s: b"xyz" + gzip.compress(s.prompt.encode()),
    "zstd": lambda s: pa.compress(_longer(s.prompt).encode(), codec="zstd", asbytes=True) + b"xyz",
    "token ids": lambda s: b"x" + np.array(s.token_ids, "<u2").tobytes(),
    "embedding": lambda s: s.embedding.astype("<f2").tobytes(),
    "pixels": lambda s: b"xy" + s.pixels.tobytes(),
    "PNG": lambda s: b"xyz" + _file(s.picture, "PNG"),
    "JPEG": lambda s: b"xyz" + _file(s.picture, "JPEG"),
    "latents": lambda s: np.clip(s.latents / np.abs(s.latents).max() * 127, -127, 127).astype("i1").tobytes(),
}


class Failing(Device):
    """Fails in one round and in tasks without a group, with errors that quote private content."""

    def train(self, run: str, received: Any, *args: Any, **options: Any) -> Any:
        """Fail in round `FAILING_ROUND`."""
        if received.round == FAILING_ROUND:
            captions = [item.caption for item in self.images.all()]
            raise RuntimeError(f"cannot learn {captions} beside {self.prompts.all()[0].prompt!r}")
        return super().train(run, received, *args, **options)

    def alone(self, task_id: str, *args: Any, **options: Any) -> Any:
        """Fail."""
        raise RuntimeError(f"cannot draw {self.prompts.get(task_id).prompt!r}")


def _failing_offer(device: Device, offer: Any, *further: Any) -> int:
    raise RuntimeError(f"cannot compare {device.prompts.get(offer.task_id).prompt!r}")


def _failing_nodes(task: Task, *further: Any) -> set[int]:
    if LEAF in task.prompt:
        raise RuntimeError(f"cannot sum {task.prompt!r}")
    return _NODES(task, *further)


def _failing_count(device: Device, task: Task, *further: Any, **options: Any) -> None:
    if LEAF in task.prompt:
        raise RuntimeError(f"cannot tell whether {task.prompt!r} equals others")
    _COUNT(device, task, *further, **options)


_NODES, _COUNT = node_answers.disclosed_nodes, own_tasks.count_disclosure


class Leaking(agent.Agent):
    """Adds private content to its replies and to its log."""

    def answer(self, ask: Ask, config: str, content: RecordDict) -> RecordDict:
        """Return the reply with leaks."""
        reply = super().answer(ask, config, content)
        secrets = Secrets(self.home.root, self._pipe, 32)
        print(f"asked for {ask} beside {secrets.prompt!r}, which is {secrets.token_ids}", flush=True)
        if ask is Ask.TRAIN and ARRAYS in reply:
            leaks = {f"leak {form}": leak(secrets) for form, leak in FORMS.items()}
            reply[BODY] = ConfigRecord({**values_of(reply), **leaks})
            reply[METRICS] = MetricRecord({**values_of(reply, METRICS), secrets.prompt: 1.0})
            reply[ARRAYS] = ArrayRecord({FLAT: Array(_hidden(values_of(reply, ARRAYS)[FLAT].data, secrets))})
        if ask is Ask.SIGNATURES:
            return RecordDict({FAILURE: ConfigRecord({"kind": f"cannot parse {secrets.prompt!r}"})})
        return reply


def _hidden(array: bytes, secrets: Secrets) -> np.ndarray:
    """Return the weights of an update with private tensors in them, scaled to the size of weights."""
    weights = array_of(array).copy()
    parts = (0.01 * secrets.embedding, 0.01 * secrets.latents + 1, 1e-3 * secrets.pixels, secrets.token_ids)
    hidden = np.concatenate([np.asarray(part, np.float32).ravel() for part in parts])
    weights[100 : 100 + hidden.size] = hidden[: weights.size - 100]
    return weights


def main(way: str, arguments: list[str]) -> None:
    """Start the device."""
    taxonomy = canary_taxonomy()
    Taxonomy.load = staticmethod(lambda: taxonomy)  # type: ignore[assignment]
    if way == "failing":
        agent.Device = Failing  # type: ignore[attr-defined]
    if way == "failing offers":
        handlers.taken_step = _failing_offer  # type: ignore[attr-defined,assignment]
        sums.disclosed_nodes = _failing_nodes  # type: ignore[attr-defined,assignment]
        equality.count_disclosure = _failing_count  # type: ignore[attr-defined]
    if way == "leaking":
        resident.Agent = Leaking  # type: ignore[attr-defined]
    sys.argv = ["fedaigc", *arguments]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
