"""The parts of a sum that a client sends contain nothing private."""

from dataclasses import replace
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from fedaigc.collaboration.secure_sum.masks import SumKey
from fedaigc.device.device import Device
from fedaigc.diffusion.encoding import encode_text
from fedaigc.federation.client import client_app
from fedaigc.federation.config.denoiser_section import DenoiserSection
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.wire import messages, sum_messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import build_tree
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi
from tests.security.privacy.recording import NUMBER, PROMPTS, RecordingGrid, forms, plan_of
from tools.leaks.detector import Detector, Secrets


@pytest.fixture(scope="module")
def summing(
    config: FederationConfig, devices: dict[int, Device], tmp_path_factory: pytest.TempPathFactory
) -> FederationConfig:
    """The run with groups on the mean of their members; its atlas has four captions, which all disclose the root."""
    pipe: Any = base_model(config.model)[0]
    # the first step of a plan does not depend on the number of steps that are shared
    space = DenoiserSpace.of(replace(plan_of(config), shared_hash=""))
    captions = [f"a {thing} on a table" for thing in ("dog", "fruit", "lemon", "thing")]
    path = tmp_path_factory.mktemp("atlas") / "tables.atlas"
    build_tree(space.hash, {"model": "embedded"}, captions, phi(pipe, space, captions), 2).write(path)
    section = DenoiserSection(atlas=path, min_captions=4, conditioning="mean")
    generation = config.generation.model_copy(update={"denoiser": section})
    return config.model_copy(update={"generation": generation})


def _sum(config: FederationConfig, devices: dict[int, Device]) -> list[tuple[str, dict[str, Any]]]:
    """Ask all devices for keys, and then for the conditionings of a prompt that each of them adds."""
    section = config.generation.denoiser
    assert section is not None
    assert section.atlas is not None
    atlas = Atlas.read(section.atlas)
    prompt = atlas.captions[atlas.medoid(0)]
    tasks = [
        device.add_prompt(f"{PROMPTS[client]} ({device.prompts.all()[-1].number})")
        for client, device in devices.items()
    ]
    with in_process_run(config) as run_id:
        run_config = config.to_run_config()
        grid = RecordingGrid(client_app.app, num_clients=len(tasks), run_config=run_config, run_id=run_id)

        def asked(kind: Ask, records: list[RecordDict]) -> list[RecordDict]:
            # in the order of the clients
            nodes = list(grid._contexts)
            sent = [Message(record, node, kind.value) for node, record in zip(nodes, records, strict=True)]
            replies = {reply.metadata.src_node_id: reply.content for reply in grid.send_and_receive(sent)}
            return [replies[node] for node in nodes]

        # what nothing is disclosed of is in no sum
        asked(Ask.SIGNATURES, [messages.body() for _ in tasks])
        keys = asked(Ask.KEYS, [sum_messages.key_order_record(KeyOrder(task, NUMBER)) for task in tasks])
        members = tuple(map(sum_messages.read_key, keys))
        asked(
            Ask.MASKED,
            [sum_messages.mask_order_record(MaskOrder(task, NUMBER, prompt, members)) for task in tasks],
        )
    return [(kind, message) for kind, message in grid.recorded if kind != Ask.SIGNATURES.value]


def test_the_parts_of_a_sum_leak_nothing(
    summing: FederationConfig,
    devices: dict[int, Device],
    detector: Detector,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe: Any = base_model(summing.model)[0]
    sent = _sum(summing, devices)
    texts = [device.prompts.all()[-1].prompt for device in devices.values()]
    own = tuple(encode_text(pipe, [text])["prompt_embeds"].numpy() for text in texts)
    searched = detector.looking_for(replace(secrets, embeddings=(*secrets.embeddings, *own)))
    assert [kind for kind, _ in sent] == [Ask.KEYS.value] * 3 + [Ask.MASKED.value] * 3
    assert all("failure" not in message for _, message in sent)
    assert [leak for kind, message in sent for leak in searched.leaks(message, kind)] == []
    # without its masks, each is found
    monkeypatch.setattr(SumKey, "masked", lambda self, values, agreed: values)
    bare = _sum(summing, devices)
    assert all("failure" not in message for _, message in bare)
    texts = [device.prompts.all()[-1].prompt for device in devices.values()]
    own = tuple(encode_text(pipe, [text])["prompt_embeds"].numpy() for text in texts)
    searched = detector.looking_for(replace(secrets, embeddings=own))
    found = [forms(searched.leaks(message)) for kind, message in bare if kind == Ask.MASKED.value]
    assert found == [{"embedding"}] * 3
