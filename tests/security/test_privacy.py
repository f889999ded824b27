"""Messages of a client, recorded on the real path through the Flower client app, contain nothing private."""

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from fedaigc.collaboration.secure_sum.masks import SumKey
from fedaigc.collaboration.session import FinishOrder, ShareOrder
from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.device import Device
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.diffusion.encoding import encode_images, encode_text
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.federation.client import client_app, handlers
from fedaigc.federation.config.denoiser_section import DenoiserSection
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import initial_shared_state, serve
from fedaigc.federation.software import SOFTWARE, own_software
from fedaigc.federation.wire import generation_messages, messages, sum_messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import build_tree
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import Signature
from fedaigc.strategy.fingerprint import strategy_code
from tests.security.leaking_device import IN_PACKETS, IN_UPDATES, VALUES, Mutant
from tools.leaks.detector import Detector, Leak, Secrets, words_of

PROMPTS = ("a gleaming strawberry on a table", "a shiny apple on a table", "a xylophone beneath mahogany")
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


NUMBER = "ab" * 16
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


def plain(reply: Message) -> dict[str, Any]:
    """Return everything in a reply as plain data."""
    if reply.has_error():
        return {"error": {"code": reply.error.code, "reason": reply.error.reason}}
    return {name: _plain_record(record) for name, record in reply.content.items()}


def _plain_record(record: Any) -> dict[str, Any]:
    if isinstance(record, ArrayRecord):
        return {
            name: {"dtype": array.dtype, "shape": list(array.shape), "stype": array.stype, "data": array.data}
            for name, array in record.items()
        }
    return dict(record)


class RecordingGrid(LocalGrid):
    """A local grid that records the replies of the clients."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.recorded: list[tuple[str, dict[str, Any]]] = []

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        self.recorded.append((message.metadata.message_type, plain(reply)))
        return reply


@pytest.fixture(scope="module")
def recorded(config: FederationConfig, devices: dict[int, Device]) -> list[tuple[str, dict[str, Any]]]:
    """A whole run, training and generation, and then messages that a client cannot obey."""
    with in_process_run(config) as run_id:
        run_config = config.to_run_config()
        grid = RecordingGrid(client_app.app, num_clients=len(PROMPTS), run_config=run_config, run_id=run_id)
        serve(grid, config)
        _disturb(grid, config, devices[0])
    return grid.recorded


def _disturb(grid: LocalGrid, config: FederationConfig, device: Device) -> None:
    """Send the first client messages that it cannot obey."""
    task_id = device.prompts.all()[0].task_id
    node = grid.get_node_ids()[0]
    finish = FinishOrder(0, task_id, _plan(config), noise_seed=1, packet=None)
    no_plan = generation_messages.finish_record(finish)
    del no_plan[generation_messages.PLAN]
    wrong = [
        (Ask.FINISH, generation_messages.finish_record(replace(finish, packet=b"garbage"))),
        (Ask.FINISH, generation_messages.finish_record(replace(finish, task_id="../0"))),
        (Ask.FINISH, no_plan),
        (Ask.SHARE, RecordDict()),
        # of a run without an atlas and sums
        (Ask.OFFER, RecordDict()),
        (Ask.KEYS, sum_messages.key_order_record(KeyOrder(task_id, NUMBER))),
        (Ask.MASKED, sum_messages.mask_order_record(MaskOrder(task_id, NUMBER, "a fruit on a table", ()))),
        (Ask.TRAIN, messages.body(round=1, header="{}", manifest="[]")),
    ]
    grid.send_and_receive([Message(content, node, kind.value) for kind, content in wrong])


def _plan(config: FederationConfig) -> Any:
    pipe, base_hash = base_model(config.model)
    shared_hash = initial_shared_state(config).hash()
    return build_plan(
        pipe,
        num_inference_steps=3,
        guidance_scale=5.0,
        height=64,
        width=64,
        base_hash=base_hash,
        shared_hash=shared_hash,
    )


def test_a_whole_run_leaks_nothing(
    recorded: list[tuple[str, dict[str, Any]]], detector: Detector, secrets: Secrets, config: FederationConfig
) -> None:
    final = json.loads((config.output / "record.json").read_text())["shared_hash"]
    allowed = detector.also_allowing([final])
    assert {kind for kind, _ in recorded} == {ask.value for ask in Ask}
    assert [leak for kind, message in recorded for leak in allowed.leaks(message, kind)] == []


def test_the_finished_pictures_stay_as_well(
    recorded: list[tuple[str, dict[str, Any]]],
    detector: Detector,
    secrets: Secrets,
    devices: dict[int, Device],
) -> None:
    drawn = [
        device.gallery.image(entry.task_id) for device in devices.values() for entry in device.gallery.all()
    ]
    assert len(drawn) == len(PROMPTS)
    searched = detector.looking_for(replace(secrets, pixels=tuple(np.asarray(image) for image in drawn)))
    found = [leak for kind, message in recorded for leak in searched.leaks(message, kind)]
    assert [leak for leak in found if leak.form == "pixels"] == []


def test_the_run_did_what_it_should_so_that_there_was_something_to_leak(
    recorded: list[tuple[str, dict[str, Any]]], devices: dict[int, Device]
) -> None:
    assert all(not device.prompts.waiting() for device in devices.values())
    kinds = [kind for kind, message in recorded if "failure" not in message]
    assert kinds.count(Ask.SHARE.value) == 1  # apple and strawberry share, the xylophone runs alone
    assert kinds.count(Ask.FINISH.value) == len(PROMPTS)
    failures = [message["failure"]["kind"] for _, message in recorded if "failure" in message]
    assert len(failures) == 8
    # the search works: the concepts that were disclosed are found
    disclosed = [
        json.loads("".join(device.prompts.all()[0].disclosed) or "{}") for device in devices.values()
    ]
    assert [bool(signature) for signature in disclosed] == [True, True, False]
    for signature in disclosed[:2]:
        assert signature["object"] in str(recorded)
        assert signature["place"] in str(recorded)


def test_the_secrets_are_there_to_be_found(secrets: Secrets) -> None:
    assert {"shiny", "apple", "gleaming", "strawberry", "xylophone", "mahogany"} <= secrets.words
    assert not secrets.words & {"table", "fruit"}
    assert all(len(ids) >= 3 for ids in secrets.token_ids)
    assert len(secrets.pixels) == len(secrets.latents) == len(PROMPTS)


def _ask(config: FederationConfig, kind: Ask, content: RecordDict) -> dict[str, Any]:
    """Return the first client's reply to one message as plain data."""
    with in_process_run(config) as run_id:
        grid = LocalGrid(client_app.app, num_clients=1, run_config=config.to_run_config(), run_id=run_id)
        (reply,) = grid.send_and_receive([Message(content, grid.get_node_ids()[0], kind.value)])
    return plain(reply)


def _share(config: FederationConfig, device: Device) -> dict[str, Any]:
    task_id = device.prompts.all()[0].task_id
    order = ShareOrder(0, task_id, "a fruit on a table", noise_seed=1, plan=_plan(config), stop=1)
    return _ask(config, Ask.SHARE, generation_messages.share_record(order))


def _train(config: FederationConfig) -> dict[str, Any]:
    return _ask(
        config,
        Ask.TRAIN,
        messages.shared_state_record(
            initial_shared_state(config), round=1, strategy_code=strategy_code(config.rounds.strategy)
        ),
    )


@pytest.mark.parametrize("form", IN_PACKETS)
def test_a_device_that_leaks_behind_its_packet_is_caught(
    form: str,
    config: FederationConfig,
    devices: dict[int, Device],
    detector: Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices[0].receive(initial_shared_state(config))
    monkeypatch.setattr(client_app, "Device", type("Leaking", (Mutant,), {"form": form}))
    assert IN_PACKETS[form] in _forms(detector.leaks(_share(config, devices[0])))


@pytest.mark.parametrize("form", IN_UPDATES)
def test_a_device_that_leaks_in_its_update_is_caught(
    form: str,
    config: FederationConfig,
    devices: dict[int, Device],
    detector: Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_app, "Device", type("Leaking", (Mutant,), {"form": form}))
    assert IN_UPDATES[form] in _forms(detector.leaks(_train(config)))


def test_the_same_messages_of_an_honest_device_are_clean(
    config: FederationConfig, devices: dict[int, Device], detector: Detector
) -> None:
    devices[0].receive(initial_shared_state(config))
    assert detector.leaks(_share(config, devices[0])) == []
    assert detector.leaks(_train(config)) == []


def test_a_device_that_discloses_more_than_its_policy_is_caught(
    config: FederationConfig, devices: dict[int, Device], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Talkative(Device):
        def signature(self, task_id: str, *arguments: Any, **options: Any) -> Any:
            return super().signature(task_id, Policy.EXACT, min_public_prompts=1)

    devices[0].add_prompt(PROMPTS[0])
    monkeypatch.setattr(client_app, "Device", Talkative)
    allowed = detector.also_allowing(devices[0].waiting())
    assert _forms(allowed.leaks(_ask(config, Ask.SIGNATURES, messages.body()))) == {"concept"}


def test_a_hello_tells_the_closed_list_of_versions_and_a_prompt_among_them_is_caught(
    config: FederationConfig, devices: dict[int, Device], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = _ask(config, Ask.HELLO, messages.body())
    assert set(honest["body"]) == {"partition", "base", "num_examples", *SOFTWARE}
    assert detector.leaks(honest) == []
    told = own_software() | {"torch": PROMPTS[0]}
    monkeypatch.setattr(handlers, "own_software", lambda: told)
    assert "words" in _forms(detector.leaks(_ask(config, Ask.HELLO, messages.body())))
    monkeypatch.setattr(handlers, "own_software", lambda: {"gleaming": "1.0"})
    assert "words" in _forms(detector.leaks(_ask(config, Ask.HELLO, messages.body())))


def test_the_text_of_an_error_is_caught(
    config: FederationConfig, devices: dict[int, Device], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Telling(Device):
        def signature(self, task_id: str, *args: Any, **options: Any) -> Any:
            raise RuntimeError(f"cannot parse {self.prompts.get(task_id).prompt!r}")

    devices[0].add_prompt(PROMPTS[0])
    monkeypatch.setattr(client_app, "Device", Telling)
    assert detector.leaks(_ask(config, Ask.SIGNATURES, messages.body())) == []
    monkeypatch.setattr(messages, "failure", lambda kind: messages.body(kind=str(kind)))
    monkeypatch.setattr(handlers, "failure_of", str)
    assert "words" in _forms(detector.leaks(_ask(config, Ask.SIGNATURES, messages.body())))


@pytest.fixture(scope="module")
def summing(
    config: FederationConfig, devices: dict[int, Device], tmp_path_factory: pytest.TempPathFactory
) -> FederationConfig:
    """The run with groups on the mean of their members; its atlas has four captions, which all disclose the root."""
    pipe: Any = base_model(config.model)[0]
    # the first step of a plan does not depend on the number of steps that are shared
    space = DenoiserSpace.of(replace(_plan(config), shared_hash=""))
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
    found = [_forms(searched.leaks(message)) for kind, message in bare if kind == Ask.MASKED.value]
    assert found == [{"embedding"}] * 3


def _forms(leaks: list[Leak]) -> set[str]:
    return {leak.form for leak in leaks}
