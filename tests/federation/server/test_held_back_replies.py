"""A device that announces a reply and holds its parts back, or sends unreadable parts.

At 32ea354, the server waited for the parts of one announced reply, up to 80 minutes if one arrived every three, while
all other replies missed their deadline. Parts that were no protobuf, or that contained each other too deeply, ended
the run.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from fedaigc.device.replies import Failure
from fedaigc.federation.server.exchange import exchange
from fedaigc.federation.wire.messages import Ask, values_of

DEADLINE_S = 2.0
# when a SuperLink gives up on parts that do not come; Flower's is 180 s
EXPIRES_S = 5.0


@pytest.fixture(autouse=True)
def _within_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_run_id", 1), ("_node_id", 1), ("_task_id", 0)):
        monkeypatch.setattr(TaskIdentity, name, value)


class Parts:
    """A reply as a device sends it: the announced message, its tree, and the bytes of each part."""

    def __init__(self, value: int) -> None:
        message = Message(RecordDict({"body": ConfigRecord({"value": value})}), 1, "train", group_id="0")
        self.contents = {key: held.deflate() for key, held in get_all_nested_objects(message).items()}
        self.tree = get_object_tree(message)
        message.metadata.__dict__["_message_id"] = message.object_id
        self.proto = message_to_proto(message)
        self.proto.ClearField("content")

    def with_content(self, parts: list[bytes]) -> "Parts":
        """Return the same reply with these parts as its content. The last part is that of the message."""
        for part in parts:
            validate_object_content(part)  # what a SuperLink looks at
        head, _, body = self.contents[self.proto.metadata.message_id].partition(HEAD_BODY_DIVIDER)
        kind, _, length = head.decode().split(" ")
        own = f"{kind} {get_object_id(parts[-1])} {length}".encode() + HEAD_BODY_DIVIDER + body
        validate_object_content(own)
        self.contents = {get_object_id(part): part for part in [*parts, own]}
        *inner, outer = self.contents
        self.proto.metadata.message_id = outer
        self.tree = ObjectTree(object_id=outer, children=[ObjectTree(object_id=key) for key in inner])
        return self


def part(kind: str, children: list[str], body: bytes) -> bytes:
    return f"{kind} {','.join(children)} {len(body)}".encode() + HEAD_BODY_DIVIDER + body


class Link:
    """The SuperLink's side of a grid, with replies by message. Those in `held_back` never get their parts."""

    def __init__(
        self, replies: dict[str, Parts], held_back: Iterable[str] = (), expires_s: float = EXPIRES_S
    ) -> None:
        self.began, self.expires_s = time.monotonic(), expires_s
        self.replies = dict(replies)
        self.missing = {key for held in held_back for key in replies[held].contents}
        self.contents = {key: value for each in replies.values() for key, value in each.contents.items()}
        self.deleted: list[str] = []

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        # each reply is told once, and none after its order has run out
        late = time.monotonic() - self.began > DEADLINE_S
        found = [] if late else [self.replies.pop(key) for key in request.message_ids if key in self.replies]
        return PullAppMessagesResponse(
            messages_list=[each.proto for each in found], message_object_trees=[each.tree for each in found]
        )

    def PullObject(self, request: Any) -> PullObjectResponse:
        key = request.object_id
        if key in self.missing:
            return PullObjectResponse(object_found=time.monotonic() - self.began < self.expires_s)
        return PullObjectResponse(object_found=True, object_available=True, object_content=self.contents[key])

    def ConfirmMessageReceived(self, request: Any) -> None:
        self.deleted.append(request.message_object_id)


class LinkedGrid(HttpGrid):
    """Flower's grid with `link` in place of its connection. Messages are called "0", "1", ..."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.node = Node(node_id=1)
        vars(self)["_run"] = SimpleNamespace(run_id=1)

    @property
    def run(self) -> Any:
        return self._run

    @property
    def _runtime_client(self) -> Any:
        return self.link

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [str(number) for number, _ in enumerate(messages)]


def asked(link: Link, count: int) -> list[RecordDict | Failure]:
    orders = [(node, RecordDict()) for node in range(count)]
    return list(exchange(LinkedGrid(link), Ask.TRAIN, orders, None, deadline_s=DEADLINE_S))


def told(reply: RecordDict | Failure) -> Any:
    return reply if isinstance(reply, Failure) else values_of(reply)["value"]


def test_whoever_holds_its_reply_back_holds_up_nobody_else() -> None:
    replies = {str(number): Parts(number) for number in range(3)}
    silent = replies["0"].proto.metadata.message_id
    link = Link(replies, held_back=["0"])
    assert [told(reply) for reply in asked(link, 3)] == [Failure.LATE, 1, 2]
    assert time.monotonic() - link.began < EXPIRES_S
    assert silent in link.deleted


def test_parts_that_do_not_come_any_more_are_not_waited_for() -> None:
    replies = {str(number): Parts(number) for number in range(2)}
    link = Link(replies, held_back=["0"], expires_s=0.0)
    assert [told(reply) for reply in asked(link, 2)] == [Failure.UNREACHABLE, 1]


def no_protobuf() -> list[bytes]:
    config = part("ConfigRecord", [], b"\xff\xff\xff")
    held = f'{{"body": "{get_object_id(config)}"}}'.encode()
    return [config, part("RecordDict", [get_object_id(config)], held)]


def within_each_other() -> list[bytes]:
    parts = [part("RecordDict", [], b"{}")]
    for _ in range(1200):
        parts.append(part("RecordDict", [get_object_id(parts[-1])], b"{}"))
    return parts


def nested_json() -> list[bytes]:
    return [part("RecordDict", [], b"[" * 100_000)]


@pytest.mark.parametrize("parts", [no_protobuf, within_each_other, nested_json])
def test_what_cannot_be_read_costs_its_sender_alone(parts: Any) -> None:
    link = Link({"0": Parts(0).with_content(parts()), "1": Parts(1)})
    assert [told(reply) for reply in asked(link, 2)] == [Failure.UNREADABLE, 1]


def test_a_reply_has_so_many_bytes_and_parts_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedaigc.federation.server import pulling

    whole = Parts(0)
    size = sum(len(content) for content in whole.contents.values())
    for bytes_left, parts_left, refused in ((0, 0, False), (-1, 0, True), (0, -1, True)):
        monkeypatch.setattr(pulling, "MAX_REPLY_PARTS", len(whole.contents) + parts_left)
        with (tmp_path / "parts").open("w+b") as file:
            pulls = pulling.Pulls(LinkedGrid(Link({"0": whole})), file, size + bytes_left)
            if refused:
                with pytest.raises(ValueError, match="the reply has"):
                    pulls.reply("0")
            else:
                reply = pulls.reply("0")
                assert reply is not None
                assert told(reply.content) == 0
