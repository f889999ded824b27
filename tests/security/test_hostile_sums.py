"""A server that arranges sums as it likes learns no member's conditioning, except where the docs say so.

Four real agents with node keys, and a server that shows each of them whatever list of members it wants.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from fedaigc.collaboration.secure_sum import fixed_point
from fedaigc.collaboration.secure_sum.masks import Announced, SumKey, SumRound
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.deployment.agent.node_signing import read_trusted_keys
from fedaigc.deployment.server.keys import make_device_key
from fedaigc.device.home.prompts import TaskStatus
from fedaigc.device.limits import OwnerLimits
from fedaigc.diffusion.conditioning import prompt_conditioning
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.wire import sum_messages
from fedaigc.federation.wire.messages import FAILURE, Ask, body
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from fedaigc.flower_private import recorddict_to_proto
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.policy import Policy
from tests.small_atlas import CAPTIONS, small_atlas
from tests.small_run import MakeRun

PROMPTS = ("1girl, solo, zorblax", "ein Hund am Strand", "two red cars, photorealistic", "a lemon")
FIRST, SECOND = "ab" * 16, "cd" * 16


class Server:
    """Sends orders to the agents, whatever it likes."""

    def __init__(self, config: FederationConfig, agents: Sequence[Agent], caption: str) -> None:
        self.config, self.agents, self.caption = config, agents, caption
        self.pipe = base_model(config.model)[0]
        self.tasks = [agent.open_device().waiting()[0] for agent in agents]
        for number in range(len(agents)):
            self.ask(number, Ask.SIGNATURES, body())

    def ask(self, number: int, kind: Ask, content: RecordDict) -> RecordDict:
        return self.agents[number].answer(kind, self.config.to_run_config()[RUN_CONFIG_KEY], content)

    def key(self, number: int, round: str = FIRST, task: str | None = None) -> Announced | None:
        order = sum_messages.key_order_record(KeyOrder(task or self.tasks[number], round))
        reply = self.ask(number, Ask.KEYS, order)
        return None if FAILURE in reply else sum_messages.read_key(reply)

    def given(self, number: int, members: Sequence[Announced], round: str = FIRST) -> np.ndarray | None:
        order = MaskOrder(self.tasks[number], round, self.caption, tuple(members))
        reply = self.ask(number, Ask.MASKED, sum_messages.mask_order_record(order))
        return None if FAILURE in reply else sum_messages.read_masked(reply, self.size)

    @property
    def size(self) -> int:
        return fixed_point.num_values(prompt_conditioning(self.pipe, ""))

    def own(self, number: int) -> np.ndarray:
        """The conditioning that nobody but the device should learn, as integers."""
        return fixed_point.encode(fixed_point.flat(prompt_conditioning(self.pipe, PROMPTS[number])))

    def made_up(self, like: Announced) -> tuple[SumKey, Announced]:
        """A key of the server's own, for a member that does not exist."""
        key = SumKey()
        return key, replace(like, key=key.public, node_key=b"", signature=b"")


@pytest.fixture
def start(make_run: MakeRun, tmp_path: Path, small_model: Path) -> Callable[..., Server]:
    path = small_atlas(tmp_path, small_model)
    section = {"atlas": path, "conditioning": "mean"}
    generation = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "denoiser": section}
    made = make_run(num_clients=4, prompts=PROMPTS, generation=generation)
    config = made.for_devices().model_copy(update={"homes": made.homes, "model": made.model})
    for client in range(4):
        make_device_key(config.home(client) / "keys")

    def started(*, pinned: bool = False, **settings: Any) -> Server:
        keys = [config.home(client) / "keys" / "device.key.pub" for client in range(4)]
        (tmp_path / "trusted").write_bytes(b"\n".join(key.read_bytes() for key in keys))
        given: Mapping[str, Any] = {
            "limits": OwnerLimits(sums=True),
            "reply_floor_s": 0.01,
            "atlas": path,
            "min_captions": len(CAPTIONS),
            "trusted_keys": read_trusted_keys(tmp_path / "trusted") if pinned else None,
            **settings,
        }
        agents = [
            Agent(config.home(client), AgentSettings(client, config.model, **given)) for client in range(4)
        ]
        read = Atlas.read(path)
        return Server(config, agents, read.captions[read.medoid(0)])

    return started


def total(parts: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.asarray(np.sum([part for part in parts if part is not None], axis=0, dtype=np.uint64))


def test_keys_that_the_server_makes_up_show_it_the_last_member_unless_keys_are_pinned(
    start: Callable[..., Server],
) -> None:
    """The documented limit of sums without `--trusted-keys`, and that the option ends it."""
    server = start()
    honest = server.key(0)
    assert honest is not None
    made_up = [server.made_up(honest) for _ in range(2)]
    members = (honest, *(announced for _, announced in made_up))
    masked = server.given(0, members)
    assert masked is not None
    assert np.count_nonzero(masked == server.own(0)) == 0
    agreed = SumRound(
        server.config.run_key,
        server.caption,
        FIRST,
        fixed_point.layout(prompt_conditioning(server.pipe, "")),
        None,
        members,
    )
    nothing = np.zeros(server.size, np.uint64)
    # its own two shares cancel the masks, and leave the conditioning bit for bit
    assert np.array_equal(masked + total([key.masked(nothing, agreed) for key, _ in made_up]), server.own(0))
    pinned = start(pinned=True)
    announced = [key for number in (1, 2, 3) if (key := pinned.key(number, SECOND)) is not None]
    own, another, third = announced
    false = [pinned.made_up(own)[1] for _ in range(2)]
    assert pinned.given(1, (own, *false), SECOND) is None
    # under the node key of another, a key of the server's own
    stolen = replace(third, key=SumKey().public)
    assert pinned.given(1, (own, another, stolen), SECOND) is None
    assert "does not trust" in (errors := (pinned.config.home(1) / "errors.log").read_text())
    assert "a signature that does not hold" in errors
    assert pinned.given(1, announced, SECOND) is not None


def test_lists_that_protect_nobody_are_refused_and_use_no_key_up(start: Callable[..., Server]) -> None:
    server = start(pinned=True)
    keys = [server.key(number) for number in range(4)]
    a, b, c, d = (key for key in keys if key is not None)
    for wrong in ((a, b), (a, b, b), (a, a, b, c), (a,), (), (b, c, d)):
        assert server.given(0, wrong) is None
    assert server.given(0, (a, b, c, d)) is not None


def test_members_that_are_shown_different_lists_give_noise(start: Callable[..., Server]) -> None:
    server = start(pinned=True)
    keys = [key for number in range(4) if (key := server.key(number)) is not None]
    # device 3 is in the lists of two only
    shown = [keys[:3], keys, keys, keys]
    parts = [server.given(number, shown[number]) for number in range(4)]
    assert all(part is not None for part in parts)
    own = [server.own(number) for number in range(4)]
    for chosen in ((0, 1, 2), (1, 2, 3), (0, 1, 2, 3), (1, 2), (0,), (3,)):
        found = total([parts[number] for number in chosen])
        assert np.count_nonzero(found == total([own[number] for number in chosen])) == 0


def test_a_second_sum_with_one_member_less_does_not_show_it(start: Callable[..., Server]) -> None:
    """The difference of two sums would be its conditioning; a prompt is in one sum, in any task and run."""
    server = start(pinned=True)
    keys = [key for number in range(4) if (key := server.key(number)) is not None]
    parts = [server.given(number, keys) for number in range(4)]
    whole = total(parts)
    assert np.array_equal(whole, total([server.own(number) for number in range(4)]))
    sizes = set()
    for number in range(3):
        # again by its name, in another run, and as a new task with the same words
        assert server.given(number, keys[:3]) is None
        assert server.key(number, SECOND) is None
        device = server.agents[number].open_device()
        again = device.add_prompt(f" {PROMPTS[number].upper()} ")
        reply = server.ask(number, Ask.SIGNATURES, body())
        assert again in str(reply)
        order = sum_messages.key_order_record(KeyOrder(again, SECOND))
        sizes.add(len(recorddict_to_proto(server.ask(number, Ask.KEYS, order)).SerializeToString()))
        assert server.key(number, SECOND, again) is None
        assert device.prompts.get(again).status is TaskStatus.WAITING
    # a refusal is as long as a key
    device = server.agents[0].open_device()
    other = device.add_prompt("something else")
    server.ask(0, Ask.SIGNATURES, body())
    order = sum_messages.key_order_record(KeyOrder(other, SECOND))
    reply = server.ask(0, Ask.KEYS, order)
    assert FAILURE not in reply
    assert sizes == {len(recorddict_to_proto(reply).SerializeToString())}


def test_a_silent_device_and_a_prompt_that_was_not_disclosed_have_no_key(
    start: Callable[..., Server],
) -> None:
    assert start(policy=Policy.SILENT).key(0) is None
    server = start()
    fresh = server.agents[0].open_device().add_prompt("typed after the server asked")
    assert server.key(0, FIRST, fresh) is None
    assert server.key(0) is not None
