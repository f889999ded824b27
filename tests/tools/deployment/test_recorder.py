"""The recorder stores and forwards every byte, and the decoding reports everything that it cannot decode."""

import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from flwr.app import MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, recorddict_to_proto
from flwr.proto.error_pb2 import Error
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, PushObjectRequest, PushObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server.keys import AUTHORITY, SERVER_CERTIFICATE, SERVER_KEY, make_server_keys
from fedaigc.federation.wire import messages
from fedaigc.federation.wire.messages import Ask
from tools.deployment.decoding import decoded
from tools.deployment.recorder import Exchange, Half, Unreadable, halves, recording


@pytest.fixture(scope="module")
def keys(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_server_keys(folder, ["127.0.0.1"])
    return folder


@pytest.fixture(scope="module")
def echo(keys: Path) -> Iterator[int]:
    """A server with TLS that answers with the received bytes in reverse."""

    async def answer(request: Request) -> Response:
        return Response((await request.body())[::-1], status_code=200 if request.url.path == "/a" else 404)

    port = free_port()
    app = Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])
    config = uvicorn.Config(
        app,
        port=port,
        log_level="error",
        ssl_certfile=str(keys / SERVER_CERTIFICATE),
        ssl_keyfile=str(keys / SERVER_KEY),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


def test_a_client_that_trusts_the_authority_is_recorded_and_served(keys: Path, echo: int) -> None:
    large = np.random.default_rng(0).bytes(3_000_000)
    trusted = ssl.create_default_context(cafile=str(keys / AUTHORITY))
    with recording(keys, echo) as recorder, httpx.Client(verify=trusted) as client:
        url = f"https://127.0.0.1:{recorder.port}"
        assert client.post(f"{url}/a", content=large).content == large[::-1]
        assert client.post(f"{url}/b", content=b"xyz").status_code == 404
        first, second = recorder.exchanges()
        assert (first.path, first.status, first.request.body) == ("/a", 200, large)
        assert (second.path, second.status, second.response.body) == ("/b", 404, b"zyx")
        assert recorder.rest() == []
        assert min(recorder.num_bytes()) > len(large)


def test_what_was_cut_off_is_kept_and_what_is_no_http_is_refused() -> None:
    whole = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    found, rest = halves(whole + whole[:-1])
    assert [half.body for half in found] == [b"abc"]
    assert rest == whole[:-1]
    assert halves(b"HTTP/1.1 204 No Content\r\n\r\n")[0][0].start == ("204",)
    for stream in (
        b"\x16\x03\x01 hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    ):
        with pytest.raises(Unreadable):
            halves(stream)


def exchange(name: str, asked: Any, answered: Any) -> Exchange:
    parts = (asked.SerializeToString(), answered.SerializeToString())
    halves = (
        Half(("POST", f"/v1/fleet/{name}"), b"", parts[0]),
        Half(("200",), b"", parts[1]),
    )
    return Exchange(f"/v1/fleet/{name}", 200, *halves)


def pushed(kind: str, content: RecordDict | Error) -> list[Exchange]:
    """The bytes that a SuperNode sends to push a message, with Flower's own types."""
    metadata = Metadata(message_type=kind, src_node_id=7, reply_to_message_id="of the order")
    told = {"error": content} if isinstance(content, Error) else {"content": recorddict_to_proto(content)}
    reply = message_from_proto(ProtoMessage(metadata=metadata, **told))
    objects = get_all_nested_objects(reply)
    proto = ProtoMessage(metadata=metadata)
    asked = PushMessagesRequest(messages_list=[proto], message_object_trees=[get_object_tree(reply)])
    calls = [exchange("push-messages", asked, PushMessagesResponse())]
    for key, part in objects.items():
        request = PushObjectRequest(object_id=key, object_content=part.deflate())
        calls.append(exchange("push-object", request, PushObjectResponse(stored=True)))
    return calls


def test_a_pushed_message_is_put_together_and_read() -> None:
    traffic = decoded(pushed(Ask.HELLO.value, messages.body(partition=3, base="abc")))
    assert traffic.unread == []
    (told,) = traffic.told
    assert str(told) == "reply query.hello"
    assert told.content["body"] == {"partition": 3, "base": "abc"}
    assert traffic.calls["push-object"] == 3


def test_tensors_are_read_from_their_number_format() -> None:
    import torch

    from fedaigc.rng import numpy_rng

    values = torch.linspace(-1, 1, 100)
    record = messages.tensors_record({"a": values}, "int8", numpy_rng(0, "test"))
    order = decoded(pushed("query.install", record))
    # a reply of this kind has no arrays: what the federation would not read is said
    assert order.told == []
    assert len(order.unread) == 1
    record["metrics"] = MetricRecord({"loss": 0.5})
    (told,) = decoded(pushed("train", record)).told
    assert told.content["arrays"]["flat"]["data"].dtype == np.int8
    assert np.abs(told.content["read"]["tensors"] - values.numpy()).max() < 0.02


def test_the_text_of_an_error_is_decoded() -> None:
    (told,) = decoded(pushed("train", Error(code=1, reason="cannot parse a zorblatique"))).told
    assert told.content == {"code": 1, "reason": "cannot parse a zorblatique"}


def test_nothing_is_passed_over() -> None:
    whole = pushed(Ask.HELLO.value, messages.body(partition=3, base="abc"))
    assert any("without its part" in why for why in decoded(whole[:-1]).unread)
    assert any("of no message" in why for why in decoded(whole[1:]).unread)
    assert decoded([exchange("push-secrets", PushMessagesRequest(), PushMessagesResponse())]).unread
    # a field that Flower's type does not have
    first = whole[1]
    hidden = first.request.body + b"\xfa\x06\x06secret"
    changed = Exchange(first.path, 200, Half(first.request.start, b"", hidden), first.response)
    assert any("9 bytes beyond" in why for why in decoded([changed]).unread)
    forged = PushObjectRequest(object_id="0" * 64, object_content=b"secret")
    (why,) = decoded([exchange("push-object", forged, PushObjectResponse())]).unread
    assert "something else" in why
