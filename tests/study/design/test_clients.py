"""The clients of a study: home and test pictures from one distribution, without duplicates."""

from collections import Counter

import pytest

from fedaigc.data.partition import PartitionSettings
from fedaigc.data.scene_words import held_out
from fedaigc.errors import UserError
from fedaigc.study.design.clients import DataSpec, local_steps, participants, split_clients
from fedaigc.study.design.config import StudyClients

KINDS = {
    "style": PartitionSettings(kind="style", size_skew="linear"),
    "object": PartitionSettings(kind="object"),
    "dirichlet": PartitionSettings(kind="dirichlet", column="place", alpha=0.3, min_size=3),
    "pathological": PartitionSettings(kind="pathological", column="place", classes_per_client=4),
    "iid": PartitionSettings(kind="iid", size_skew="linear"),
}
CLIENTS = StudyClients(number=8, images=160, new=(2, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_the_split_depends_on_the_study_alone_and_gives_every_image_away(kind: str) -> None:
    data = DataSpec.of(CLIENTS, KINDS[kind])
    clients = split_clients(data)
    assert clients == split_clients(data)
    assert sum(client.num_images for client in clients) == 160
    assert [client.index for client in clients if client.new] == [2, 5]
    assert [client.index for client in participants(clients)] == [0, 1, 3, 4, 6, 7]
    other = split_clients(DataSpec.of(CLIENTS.model_copy(update={"seed": 1}), KINDS[kind]))
    assert other != clients or kind == "iid"


@pytest.mark.parametrize("kind", KINDS)
def test_homes_have_the_composition_of_the_split_and_trained_pairs_only(kind: str) -> None:
    for client in split_clients(DataSpec.of(CLIENTS, KINDS[kind]))[:3]:
        captions = [row["caption"] for row in client.pictures(7)]
        assert len(captions) == client.num_images
        words = [(caption.split()[-4], caption.split()[-1]) for caption in captions]
        assert not any(held_out(thing, place) for thing, place in words)
        if kind == "object":
            assert Counter(thing for thing, _ in words) == client.composition()
        if kind in ("dirichlet", "pathological"):
            assert Counter(place for _, place in words) == client.composition()


def test_pictures_differ_by_seed_and_split_and_repeat() -> None:
    client = split_clients(DataSpec.of(CLIENTS, KINDS["style"]))[0]

    def pixels(rows: object) -> list[bytes]:
        return [row["image"].tobytes() for row in rows]  # type: ignore[attr-defined]

    home = pixels(client.pictures(0))
    assert pixels(client.pictures(0)) == home
    others = [
        *pixels(client.pictures(1)),
        *pixels(client.fresh_pictures(20, 0, "test")),
        *pixels(client.fresh_pictures(20, 0, "validation")),
    ]
    assert not set(home) & set(others)
    assert len(set(others)) == len(others)
    assert pixels(client.fresh_pictures(20, 0, "test"))[:5] == pixels(client.fresh_pictures(5, 0, "test"))


@pytest.mark.slow
def test_test_pictures_follow_the_client_s_own_mixture() -> None:
    """Among 2,000 fresh scenes, the share of each place is within five standard errors of the home's."""
    client = split_clients(DataSpec.of(StudyClients(number=4, images=80), KINDS["dirichlet"]))[1]
    drawn = Counter(row["caption"].split()[-1] for row in client.fresh_pictures(2000, 0, "test"))
    for place, count in client.composition().items():
        share = count / client.num_images
        assert abs(drawn[place] / 2000 - share) < 5 * (share * (1 - share) / 2000) ** 0.5 + 1e-9
    assert set(drawn) <= set(client.composition())


def test_a_column_that_scenes_do_not_have_is_named() -> None:
    with pytest.raises(UserError, match="no column 'colour'"):
        split_clients(DataSpec.of(CLIENTS, PartitionSettings(kind="dirichlet", column="colour")))


def test_local_steps_by_hand() -> None:
    """20 images, batches of 8: 1.5 epochs are 3.75, so 4 steps; never less than one."""
    client = split_clients(DataSpec.of(StudyClients(number=2, images=40), PartitionSettings(kind="iid")))[1]
    assert client.num_images == 20
    assert local_steps(StudyClients(local_epochs=1.5), client, 8, 99) == 4
    assert local_steps(StudyClients(local_epochs=0.01), client, 8, 99) == 1
    assert local_steps(StudyClients(number=2, local_steps=(3, 7)), client, 8, 99) == 7
    assert local_steps(StudyClients(), client, 8, 99) == 99
