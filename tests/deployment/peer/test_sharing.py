"""Two devices share over real sockets: as one process would, and each prompt is drawn once whatever happens."""

import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fedaigc.bounds import MAX_PEER_MESSAGE, MAX_PEER_REQUESTS
from fedaigc.collaboration.between_devices import device_bytes
from fedaigc.collaboration.results import GroupRecord, TaskRecord
from fedaigc.collaboration.sealing import Binding, new_key, public_key, seal, sealed_bytes
from fedaigc.deployment.peer import messages
from fedaigc.deployment.peer.connections import calling
from fedaigc.deployment.peer.frames import Frames, PeerGone
from fedaigc.deployment.peer.messages import Agreed, Hello, Match, Reason, Refused
from fedaigc.deployment.peer.paired import Card, Peers
from fedaigc.deployment.peer.sharing import Outcome, Reached, Sharer
from fedaigc.device.home.budget import Budget, set_home_budget
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.device.limits import OwnerLimits
from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.disclosed import read_signature
from fedaigc.semantics.policy import Policy
from tests.deployment.peer.devices import (
    ANSWERS,
    CALLS,
    NAMES,
    TERMS,
    paired_homes,
    pictures,
    run,
    sharer_of,
    tasks,
)
from tests.deployment.peer.one_process import drawn_in_one_process
from tests.small_atlas import small_atlas

# words that no message may hold
PROMPTS = ("zorblax dog, quuxdown", "a frobnik horse over wibbleton")
WORDS = [word.strip(",").encode() for prompt in PROMPTS for word in prompt.split() if len(word) > 4]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    return small_atlas(tmp_path_factory.mktemp("atlas"), small_model)


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    return paired_homes(tmp_path, PROMPTS)


def by_nodes(
    homes: tuple[Path, Path], small_model: Path, atlas: Path, costs: tuple[int, int] = (0, 50)
) -> tuple[Sharer, Sharer]:
    own = {"atlas": atlas, "calibration": atlas.with_name("small.json"), "min_captions": 2}
    one, other = (sharer_of(home, small_model, cost, **own) for home, cost in zip(homes, costs, strict=True))
    return one, other


@pytest.mark.parametrize("costs", [(0, 50), (50, 0)])
def test_the_pictures_are_those_of_one_process(
    tmp_path: Path, homes: tuple[Path, Path], small_model: Path, atlas: Path, costs: tuple[int, int]
) -> None:
    copies = [Path(shutil.copytree(home, tmp_path / "copies" / home.name)) for home in homes]
    ran = run(tmp_path, by_nodes(homes, small_model, atlas, costs))
    executor = min(CALLS, ANSWERS, key=lambda side: costs[side])
    assert [outcome and (outcome.executor, outcome.why) for outcome in ran.outcomes] == [
        ("own" if side == executor else "other", "") for side in (CALLS, ANSWERS)
    ]
    # the same in this process, from the wire
    agreed = drawn_in_one_process(homes, copies, ran.sent, small_model, atlas)
    assert agreed.prompt in Atlas.read(atlas).captions
    assert agreed.found.executor == Peers(Home.open(homes[executor])).own().fingerprint
    for home, copy in zip(homes, copies, strict=True):
        assert pictures(home) == pictures(copy)
        assert len(pictures(home)) == 1
        (task,) = tasks(home)
        assert (task.status, task.attempts) == (TaskStatus.FINISHED, 1)
        # the owner reads what was disclosed: as the messages have it
        queue = PromptQueue(Home.open(home))
        ((entry,), (counted,)) = queue.disclosures.entries(), queue.ledger.entries()
        assert read_signature(entry.signature) in agreed.signatures
        assert (counted.said, counted.task_id) == (entry.signature, task.task_id)
    # nothing of a prompt, nor of the packet, and all messages of one size
    frames = [frame for sent in ran.sent for frame in sent]
    assert not [word for word in WORDS for frame in frames if word in frame]
    assert agreed.packet[42:] not in b"".join(frames)
    (sealed,) = (frame for frame in frames if frame.startswith(b"FAGS"))
    assert {len(frame) for frame in frames if frame is not sealed} == {MAX_PEER_MESSAGE}
    assert len(sealed) > len(agreed.packet)
    # as many bytes as a simulation counts, each frame after its length
    tasks_of_pair = tuple(TaskRecord.model_construct(client=client) for client in (0, 1))
    group = GroupRecord.model_construct(num_shared_steps=2, tasks=tasks_of_pair)
    room = len(sealed) - sealed_bytes(0, 1)
    assert device_bytes("pair", [group], 2, room) == {
        "messages": sum(4 + len(frame) for frame in frames if frame is not sealed),
        "packets": 4 + len(sealed),
    }


@pytest.mark.parametrize("side", [CALLS, ANSWERS])
@pytest.mark.parametrize("frame", [1, 2, 3, 4, 5])
def test_a_device_that_is_killed_costs_only_the_sharing(
    tmp_path: Path, homes: tuple[Path, Path], small_model: Path, atlas: Path, side: int, frame: int
) -> None:
    # either is the executor in half of the cases
    sharers = by_nodes(homes, small_model, atlas, (0, 50) if (side + frame) % 2 else (50, 0))
    ran = run(tmp_path, sharers, killed=(side, frame))
    left = 1 - side
    assert ran.outcomes[side] is None
    outcome = ran.outcomes[left]
    assert outcome is not None
    (task,), (lost,) = tasks(homes[left]), tasks(homes[side])
    # before a prompt of the other device was chosen, that waits as before
    asked = left == CALLS or frame > 1
    assert outcome.task_id == (task.task_id if asked else None)
    assert (task.status, task.attempts) == ((TaskStatus.FINISHED, 1) if asked else (TaskStatus.WAITING, 0))
    assert len(pictures(homes[left])) == asked
    # the device that died draws it when it is asked again, though nobody answers
    assert lost.status is TaskStatus.WAITING
    assert pictures(homes[side]) == {}
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    again = sharers[side].call(calling(sharers[side], NAMES[left], address), TERMS)
    assert "no device answers" in again.why
    (lost,) = tasks(homes[side])
    assert (lost.status, lost.attempts) == (TaskStatus.FINISHED, 1)
    assert len(pictures(homes[side])) == 1


class Peer:
    """The other device of a call, in the clear and in this process, as a test plays it."""

    def __init__(self, card: Card, play: Callable[[Frames], object]) -> None:
        self.card, self._play = card, play

    @contextmanager
    def __call__(self) -> Iterator[Reached]:
        one, other = socket.socketpair()
        thread = threading.Thread(target=self._played, args=(other,))
        thread.start()
        with one:
            yield Reached(Frames(one, 120), "tablet", self.card)
        thread.join()

    def _played(self, end: socket.socket) -> None:
        with end:
            self._play(Frames(end, 120))
            end.shutdown(socket.SHUT_WR)
            # a socket that is closed before all is read takes back what it sent
            while end.recv(1 << 16):
                pass


def matched(frames: Frames, cost: int, node: int | None = None) -> tuple[Hello, Match]:
    hello = messages.receive(frames, Hello)
    signature = (
        hello.signature if node is None else f'{{"atlas":"{"0" * 64}","highest":{node},"node":{node}}}'
    )
    match = Match("0" * 64, cost, signature)
    messages.send(frames, match)
    return hello, match


def wrong_packet(frames: Frames) -> None:
    matched(frames, 0)
    messages.receive(frames, Agreed)
    key = new_key()
    frames.send(seal(b"FAGC", Binding(bytes(32), 2), key, [public_key(key)], 1 << 14))


@pytest.mark.parametrize(
    ("play", "why"),
    [
        (lambda frames: None, "the connection ended|ended the connection"),
        (lambda frames: frames.send(b"[]".ljust(MAX_PEER_MESSAGE)), "unknown kind"),
        (lambda frames: frames.send(b'["match", {}]'), "16384"),
        (lambda frames: messages.send(frames, Refused(Reason.NOTHING_FITS)), "none of its waiting prompts"),
        (lambda frames: messages.send(frames, Agreed("0" * 64)), "out of turn"),
        (lambda frames: matched(frames, 0, node=0), "does not fit"),
        (wrong_packet, "not sealed to this machine|a sealed packet of"),
    ],
)
def test_whatever_the_other_device_does_the_prompt_is_drawn_once(
    homes: tuple[Path, Path], small_model: Path, atlas: Path, play: Callable[[Frames], object], why: str
) -> None:
    caller = by_nodes(homes, small_model, atlas, (50, 0))[CALLS]
    outcome = caller.call(Peer(Peers(Home.open(homes[ANSWERS])).own(), play)(), TERMS)
    assert re.search(why, outcome.why), outcome.why
    assert outcome.executor == ""
    (task,) = tasks(homes[CALLS])
    assert (task.status, task.attempts, outcome.task_id) == (TaskStatus.FINISHED, 1, task.task_id)
    assert len(pictures(homes[CALLS])) == 1
    assert outcome.why[:40] in (homes[CALLS] / "errors.log").read_text()


def answered(answerer: Sharer, card: Card, hello: Hello, then: Callable[[Frames], object]) -> Outcome:
    """Return the outcome of a call that a test plays."""

    def play(frames: Frames) -> None:
        messages.send(frames, hello)
        then(frames)

    return answerer.answer(Peer(card, play)())


def test_a_device_refuses_what_its_owner_does_not_want(
    homes: tuple[Path, Path], small_model: Path, atlas: Path
) -> None:
    caller, answerer = by_nodes(homes, small_model, atlas)
    hellos: list[Hello] = []
    caller.call(
        Peer(
            Peers(Home.open(homes[ANSWERS])).own(),
            lambda frames: hellos.append(messages.receive(frames, Hello)),
        )(),
        TERMS,
    )
    (hello,) = hellos
    told: list[str] = []

    def refused(frames: Frames) -> None:
        with pytest.raises(messages.PeerRefused) as error:
            messages.receive(frames, Match)
        told.append(str(error.value))

    card = Peers(Home.open(homes[CALLS])).own()
    slow = replace(hello, plan=hello.plan | {"num_inference_steps": 500})
    root = f'{{"atlas":"{"1" * 64}","highest":0,"node":0}}'
    for changed in (
        slow,
        replace(hello, plan=hello.plan | {"fingerprint": "0" * 64}),
        replace(hello, plan={}),
        replace(hello, shared_steps=4),
        replace(hello, space=""),
        replace(hello, space="1" * 64),
        replace(hello, signature=root),
    ):
        answered(answerer, card, changed, refused)
    plan, space, fits = (messages._TOLD[r] for r in (Reason.PLAN, Reason.OTHER_SPACE, Reason.NOTHING_FITS))
    assert [line.partition(": ")[2] for line in told] == [plan] * 4 + [space] * 2 + [fits]
    # a signature that is none, or a prompt
    for text in ("", '{"atlas":1}', '{"policy":"open","prompt":"x"}'):
        outcome = answered(answerer, card, replace(hello, signature=text), lambda frames: None)
        assert "signature" in outcome.why
    # one that is asked too often
    for _ in range(MAX_PEER_REQUESTS):
        often = answerer._asked_often(card)
    assert often
    answered(answerer, card, hello, refused)
    assert told[-1].endswith(messages._TOLD[Reason.BUSY])
    # and nothing was said of its prompt, or drawn
    (task,) = tasks(homes[ANSWERS])
    assert (task.status, task.attempts, task.offers, task.disclosed) == (TaskStatus.WAITING, 0, 0, ())


def test_an_agreement_to_something_else_is_refused_and_the_answer_counted(
    homes: tuple[Path, Path], small_model: Path, atlas: Path
) -> None:
    caller, answerer = by_nodes(homes, small_model, atlas)
    card = Peers(Home.open(homes[CALLS])).own()
    hellos: list[Hello] = []
    own = Peers(Home.open(homes[ANSWERS])).own()
    caller.call(Peer(own, lambda frames: hellos.append(messages.receive(frames, Hello)))(), TERMS)

    def other(frames: Frames) -> None:
        messages.receive(frames, Match)
        messages.send(frames, Agreed("f" * 64))

    outcome = answered(answerer, card, hellos[0], other)
    assert "something else" in outcome.why
    (task,) = tasks(homes[ANSWERS])
    assert (task.status, task.attempts, task.offers) == (TaskStatus.FINISHED, 1, 1)


def test_concepts_without_an_atlas(tmp_path: Path, small_model: Path) -> None:
    homes = paired_homes(tmp_path, ("a shiny apple on a table", "a dog near a river"))
    PromptQueue(Home.open(homes[ANSWERS])).add("a lemon on a table")
    ran = run(
        tmp_path, (sharer_of(homes[CALLS], small_model, 50), sharer_of(homes[ANSWERS], small_model, 50))
    )
    executors = {outcome.executor for outcome in ran.outcomes if outcome is not None}
    assert executors == {"own", "other"}
    dog, lemon = tasks(homes[ANSWERS])
    assert (dog.status, lemon.status) == (TaskStatus.WAITING, TaskStatus.FINISHED)
    # nothing was said of the prompt that does not fit
    assert dog.disclosed == ()
    assert not any(word in frame for word in (b"shiny", b"lemon") for sent in ran.sent for frame in sent)


def test_what_the_budget_does_not_allow_is_not_said(
    homes: tuple[Path, Path], small_model: Path, atlas: Path
) -> None:
    for home in homes:
        set_home_budget(Home.open(home), Budget(bits_a_day=1.0))
    caller, answerer = by_nodes(homes, small_model, atlas)
    hellos: list[Hello] = []
    card = Peers(Home.open(homes[ANSWERS])).own()
    ends: list[str] = []

    def asked(frames: Frames) -> None:
        try:
            hellos.append(messages.receive(frames, Hello))
        except PeerGone as error:
            ends.append(str(error))

    assert "budget" in caller.call(Peer(card, asked)(), TERMS).why
    assert (len(hellos), len(ends)) == (0, 1)
    (task,) = tasks(homes[CALLS])
    assert (task.status, task.disclosed) == (TaskStatus.FINISHED, ())
    set_home_budget(Home.open(homes[CALLS]), Budget())
    PromptQueue(Home.open(homes[CALLS])).add("zorblax again")
    caller.call(Peer(card, asked)(), TERMS)
    outcome = answered(answerer, Peers(Home.open(homes[CALLS])).own(), hellos[0], lambda frames: None)
    assert "budget" in outcome.why
    (task,) = tasks(homes[ANSWERS])
    assert (task.status, task.attempts, task.disclosed) == (TaskStatus.WAITING, 0, ())
    # with noise on nodes nothing is compared
    set_home_budget(Home.open(homes[CALLS]), Budget(node_epsilon=2.0))
    PromptQueue(Home.open(homes[CALLS])).add("zorblax once more")
    assert "nothing of this prompt may be disclosed" in caller.call(Peer(card, asked)(), TERMS).why
    assert len(hellos) == 1


def test_open_prompts_are_never_sent(homes: tuple[Path, Path], small_model: Path) -> None:
    with pytest.raises(UserError, match="choose another"):
        sharer_of(homes[CALLS], small_model, policy=Policy.OPEN)


def test_wrong_orders_of_the_owner_draw_nothing(
    homes: tuple[Path, Path], small_model: Path, atlas: Path
) -> None:
    caller = sharer_of(homes[CALLS], small_model, limits=OwnerLimits())
    with pytest.raises(UserError, match="paired: answerer"):
        calling(caller, "kitchen", "127.0.0.1:1")
    with pytest.raises(UserError, match="host:port"):
        calling(caller, "answerer", "nowhere")
    there = calling(caller, "answerer", "127.0.0.1:1")
    for terms in (replace(TERMS, shared_steps=0), replace(TERMS, shared_steps=4)):
        with pytest.raises(UserError, match="expected 1 to 3"):
            caller.call(there, terms)
    with pytest.raises(UserError, match="no task"):
        caller.call(there, TERMS, "0" * 16)
    assert [task.attempts for task in tasks(homes[CALLS])] == [0]
