"""Runs whose devices share without an edge: in pairs and in clusters."""

from typing import Any

import pytest

from fedaigc.bounds import MAX_PEER_MESSAGE
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.collaboration.results import GroupRecord, Outcome
from fedaigc.deployment.cluster.election import elect
from fedaigc.deployment.cluster.offers import VERSION, Offer, SignedOffer
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.output.run_summary import generation_lines
from fedaigc.federation.preloaded import taxonomy
from fedaigc.federation.runtime.launcher import run_in_process, simulate
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.grouping import group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE
from tests.small_run import MakeRun, generation_of, images

# client 0 has two fruits and one animal, the others one prompt each
PROMPTS = (
    "an apple on a table",
    "a shiny lemon on a table",
    "a dog near a river",
    "a pear on a table",
    "a cat near a river",
)
DRAWN = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none"}


def drawn(
    make_run: MakeRun, folder: str, topology: str, clients: int = 3, **values: Any
) -> tuple[FederationConfig, RunRecord]:
    generation = {**DRAWN, "topology": topology, **values}
    config = make_run(
        folder, num_clients=clients, prompts=PROMPTS, rounds={"count": 0}, generation=generation
    )
    run_in_process(config)
    return config, read_record(config.output)


def sharing(record: RunRecord) -> list[GroupRecord]:
    return sorted(
        (each for each in generation_of(record).groups if each.num_shared_steps), key=lambda g: g.prompt
    )


def clients(each: GroupRecord) -> list[int]:
    return sorted(task.client for task in each.tasks)


def test_a_cluster_draws_the_pictures_of_an_edge_and_a_device_computes(make_run: MakeRun) -> None:
    edge, by_edge = drawn(make_run, "edge", "edge")
    ours, record = drawn(make_run, "cluster", "cluster", costs=[50, 0, 10])
    # fruits on clients 0, 0 and 1, animals on 1 and 2
    assert [clients(each) for each in sharing(record)] == [[0, 0, 1], [1, 2]]
    assert [each.executor for each in sharing(record)] == [1, 1]
    assert [each.executor for each in sharing(by_edge)] == ["edge", "edge"]
    # the same groups, the same noise, the same steps: bit for bit
    assert images(ours) == images(edge)
    assert len(images(ours)) == len(PROMPTS)
    assert {task.outcome for task in record.tasks} == {Outcome.SHARED}
    # one packet to each other device: one for the animals, one for both of the fruits of client 0
    size = sharing(by_edge)[1].packet_bytes // 2
    assert [each.packet_bytes for each in sharing(by_edge)] == [3 * size, 2 * size]
    assert [each.packet_bytes for each in sharing(record)] == [size, size]
    assert [each.evaluations for each in sharing(record)] == [2 + 3 * 2, 2 + 2 * 2]
    assert any("2 shared steps by client 1" in line for line in generation_lines(record))
    # three devices: 12 offers, 6 commits, and each of two groups has one member that is not the executor
    assert generation_of(by_edge).device_bytes == {}
    counted = generation_of(record).device_bytes
    assert counted["messages"] == (12 + 6 + 2) * (4 + MAX_PEER_MESSAGE)
    assert counted["packets"] > 2 * size
    assert f"{counted['messages'] / 1e6:.2f} MB of messages" in generation_lines(record)[-1]


def test_pairs_have_two_devices_of_which_the_cheaper_computes(make_run: MakeRun) -> None:
    ours, record = drawn(make_run, "pair", "pair", costs=[10, 50, 20])
    found = sharing(record)
    assert all(len(each.tasks) == len(set(clients(each))) == 2 for each in found)
    for each in found:
        costs = {client: (10, 50, 20)[client] for client in clients(each)}
        assert each.executor == min(costs, key=costs.__getitem__)
    counted = generation_of(record).device_bytes
    assert counted["messages"] == len(found) * 4 * (4 + MAX_PEER_MESSAGE)
    # of three fruits on two devices one finds nobody, and is drawn alone
    assert sorted(task.outcome for task in record.tasks) == [Outcome.ALONE, *[Outcome.SHARED] * 4]
    assert len(images(ours)) == len(PROMPTS)


def test_a_simulation_elects_what_the_devices_of_a_cluster_elect(make_run: MakeRun) -> None:
    costs = (50, 20, 10)
    _, record = drawn(make_run, "cluster", "cluster", costs=costs)
    devices = [f"{client}" * 64 for client in range(3)]
    prompts = {client: PROMPTS[client::3] for client in range(3)}
    signed = []
    for client, device in enumerate(devices):
        said = [disclose(parse(text, taxonomy()), Policy.KIND, taxonomy(), 3) for text in prompts[client]]
        texts = tuple(each.to_json() for each in said if each is not None)
        assert len(texts) == len(prompts[client])
        offer = Offer(VERSION, 1, device, "0" * 64, 2, "", "0" * 64, costs[client], texts)
        signed.append(SignedOffer(offer, f"offer of {client}", ""))
    elected = elect(signed, {"": lambda said, owners: group(said, taxonomy())})  # type: ignore[arg-type]

    def in_clients(members: tuple[str, ...]) -> list[int]:
        return sorted(devices.index(member.split("/")[0]) for member in members)

    assert sorted(
        (each.prompt, in_clients(each.members), devices.index(each.executor)) for each in elected
    ) == [(each.prompt, clients(each), each.executor) for each in sharing(record)]


def test_only_what_a_device_sends_to_another_crosses_the_link_and_nothing_a_backhaul(
    make_run: MakeRun,
) -> None:
    link = {"snr_db": 30.0, "number_format": "fixed8-gray"}
    generation = DRAWN | {"topology": "cluster", "link": link, "delivery": "tolerant"}
    config = make_run(prompts=PROMPTS, rounds={"count": 0}, generation=generation, edges={"count": 2})
    run_in_process(config)
    record = read_record(config.output)
    assert len(sharing(record)) == 2
    for each in sharing(record):
        crossed = {task.client for task in each.tasks if task.link is not None}
        assert crossed == set(clients(each)) - {each.executor}
        # two tasks of one device need one transmission
        assert sum(task.link is not None for task in each.tasks) == len(crossed)
        assert {task.outcome for task in each.tasks} == {Outcome.SHARED}
    # a phone sends, with its own power unless the link names another one
    assert record.config["generation"]["link"]["tx_power_w"] == PHONE.tx_power_w
    louder = config.generation.model_dump() | {"link": link | {"tx_power_w": 0.4}}
    loud = parse_config({"homes": "h", "output": "o", "generation": louder}).generation.link
    assert loud == LinkSettings.model_validate(louder["link"])
    report = next(task.link for task in record.tasks if task.link is not None)
    radio = PHONE.radio
    airtime = report.receive_j / radio.receive_w
    assert report.send_j == pytest.approx(
        (PHONE.tx_power_w / radio.amplifier_efficiency + radio.circuit_w) * airtime
    )
    assert report.send_j < EDGE_SERVER.radio.send_energy_j(airtime)
    # of all messages the edges forward reports only
    assert record.backhaul_bytes["up"]["metrics"] > 0
    for kind in ("signatures", "packets"):
        assert record.sent_bytes["up"][kind] + record.sent_bytes["down"][kind] > 0
        assert record.backhaul_bytes["up"][kind] + record.backhaul_bytes["down"][kind] == 0


def test_a_configuration_that_a_process_passes_on_is_the_same() -> None:
    generation = {"topology": "cluster", "costs": [9, 1], "link": {"distance_m": 50.0}}
    config = parse_config({"homes": "h", "output": "o", "generation": generation})
    assert config.generation.executor == "member"
    assert FederationConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"topology": "ring"}, "'pair' or 'cluster'"),
        ({"costs": [1]}, "no device is chosen by its cost"),
        ({"topology": "cluster", "costs": [101]}, "less than or equal to 100"),
        ({"topology": "pair", "executor": "edge"}, "has no edge"),
        ({"topology": "pair", "planner": "greedy_tree"}, "two by two"),
        ({"topology": "pair", "denoiser": {"min_devices": 3}}, "groups of two devices"),
        ({"topology": "cluster", "denoiser": {"equal_prompts": True}}, "public prompts only"),
        ({"topology": "cluster", "denoiser": {"conditioning": "mean"}}, "public prompts only"),
        ({"topology": "cluster", "denoiser": {"ladder": [5]}}, "hands off more than once"),
        ({"topology": "cluster", "edge_batch": 2}, "edge_batch"),
    ],
)
def test_what_no_device_can_do_without_an_edge_is_refused(values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        parse_config({"homes": "h", "output": "o", "generation": values})


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["pair", "cluster"])
def test_ray_draws_the_pictures_of_one_process(make_run: MakeRun, topology: str) -> None:
    ours, record = drawn(make_run, "one", topology, costs=[50, 0, 10])
    config = make_run(
        "ray",
        prompts=PROMPTS,
        rounds={"count": 0},
        generation=DRAWN | {"topology": topology, "costs": [50, 0, 10]},
        backend="ray",
        workers=2,
    )
    other = simulate(config)
    assert images(config) == images(ours)
    assert [each.executor for each in sharing(other)] == [each.executor for each in sharing(record)]
