"""Devices with secrets, and the detector that looks for them."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.device import Device
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.diffusion.encoding import encode_images, encode_text
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.software import own_software
from fedaigc.federation.wire.messages import Ask
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import Signature
from tests.security.leaking_device import VALUES
from tests.security.privacy.recording import PROMPTS
from tools.leaks.detector import Detector, Secrets, words_of

PUBLIC_WORDS = words_of("a an the on near above of in table fruit")
# the names of the values in a reply, beside those of the closed types
RECORDS = (
    "body",
    "arrays",
    "metrics",
    "failure",
    "flat",
    "data",
    "dtype",
    "float32",
    "uint64",
    "shape",
    "stype",
    "numpy.ndarray",
)
LOSSES = ("shared_loss", "personal_loss")
CLOSED_TYPES = (FinishReport, SharedSteps, Signature)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> FederationConfig:
    root = tmp_path_factory.mktemp("federation")
    return parse_config(
        {
            "homes": root / "homes",
            "output": root / "output",
            "num_clients": len(PROMPTS),
            "adapter": {"rank": 1},
            "rounds": {"count": 1, "strategy": "fedit"},
            "training": {"local_steps": 1, "personal_steps": 1, "batch_size": 2},
            "generation": {
                "num_inference_steps": 3,
                "num_shared_steps": 1,
                "executor": "member",
                "scorer": "none",
            },
        }
    )


@pytest.fixture(scope="module")
def devices(config: FederationConfig, taxonomy: Taxonomy) -> dict[int, Device]:
    pipe, base_hash = base_model(config.model)
    made = {}
    for client, prompt in enumerate(PROMPTS):
        made[client] = Device(config.home(client), pipe, base_hash=base_hash, taxonomy=taxonomy, seed=client)
        made[client].add_images(scenes_dataset(styles=("noto",), n=1, seed=client))
        made[client].add_prompt(prompt)
    return made


@pytest.fixture(scope="module")
def secrets(config: FederationConfig, devices: dict[int, Device], taxonomy: Taxonomy) -> Secrets:
    pipe: Any = base_model(config.model)[0]
    pictures = [item for device in devices.values() for item in device.images.all()]
    images, captions = [item.image for item in pictures], [item.caption for item in pictures]
    encoded = encode_images(pipe, images, captions, height=64, width=64)
    ids = [tuple(pipe.tokenizer(prompt, add_special_tokens=False).input_ids) for prompt in PROMPTS]
    public = {
        token for word in PUBLIC_WORDS for token in pipe.tokenizer(word, add_special_tokens=False).input_ids
    }
    meant = [parse(text, taxonomy) for text in (*PROMPTS, *captions)]
    concepts = {concept for each in meant for concept in (each.object, each.place) if concept is not None}
    return Secrets(
        words=frozenset(words_of(" ".join([*PROMPTS, *captions])) - PUBLIC_WORDS),
        concepts=frozenset(concepts - set(taxonomy.senses("table"))),
        token_ids=tuple(ids),
        public_ids=frozenset(public),
        embeddings=tuple(encode_text(pipe, list(PROMPTS))["prompt_embeds"].numpy()),
        pixels=tuple(np.asarray(image) for image in images),
        latents=tuple(encoded.latents.numpy()),
    )


@pytest.fixture(scope="module")
def detector(
    config: FederationConfig, devices: dict[int, Device], secrets: Secrets, taxonomy: Taxonomy
) -> Detector:
    shared = initial_shared_state(config)
    enums = [kind.value for enum in (Ask, Failure, Policy, Relation) for kind in enum]
    tasks = [task.task_id for device in devices.values() for task in device.prompts.all()]
    layers = list(shared.tensors())
    names = [field.name for kind in CLOSED_TYPES for field in fields(kind)]
    software = own_software().values()
    hashes = shared.base_hash, shared.hash()
    return Detector(
        secrets,
        [*RECORDS, *VALUES, *LOSSES, *names, *enums, *tasks, *layers, *software, *hashes],
        taxonomy.__contains__,
    )
