"""Galleries: what is drawn for each client, by hand, and the table of their distances."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fedaigc.diffusion.adapters.stages import SharedState, new_adapter
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.federation.preloaded import base_model
from fedaigc.metrics.intervals import Estimate
from fedaigc.rng import rng
from fedaigc.study.design.clients import StudyClient, participants, split_clients
from fedaigc.study.design.runs import base_run
from fedaigc.study.execute.picture_distance import Galleries
from fedaigc.study.results.comparison_tables import gallery_table
from fedaigc.study.results.records import StudyRecord
from fedaigc.study.results.summary import PartitionResults, RowResults
from tests.study.conftest import MakeStudy, study_record


@pytest.fixture
def drawn_by(make_study: MakeStudy) -> Any:
    """Galleries of 8 pictures in 4 steps over the three clients that train, and their content."""
    study = make_study(evaluation={"gallery": 8, "gallery_steps": 4, "gallery_guidance": 1.0})
    run = base_run(study, "iid")
    config = run.config(Path())
    pipe, base_hash = base_model(config.model)
    clients = participants(split_clients(run.data))
    boundary = boundary_log_snr(pipe, 500)
    galleries = Galleries(
        pipe, base_hash, config.model, clients, run.evaluation, boundary_log_snr=boundary, seed=0
    )
    return galleries, pipe, boundary


def moved(pipe: Any, boundary: float, by: float) -> SharedState:
    """Return a state whose factors B are `by` everywhere, which is the base for 0."""
    start = new_adapter(pipe, generator=rng(0, "factors"), rank=2)
    lora = {name: (down, up + by) for name, (down, up) in start.lora.items()}
    return SharedState("base", lora, start.rank, start.alpha, boundary_log_snr=boundary)


def test_a_gallery_is_of_every_client_that_trains_under_its_own_state(drawn_by: Any) -> None:
    galleries, pipe, boundary = drawn_by
    asked: Counter[int] = Counter()

    def one_moves(client: StudyClient) -> SharedState:
        asked[client.index] += 1
        return moved(pipe, boundary, 0.5 if client.index == 1 else 0.0)

    base = [image.tobytes() for image in galleries.draw(lambda client: None)]
    mixed = [image.tobytes() for image in galleries.draw(one_moves)]
    # 8 pictures over 3 clients are 3, 3 and 2; the new client has none
    assert dict(asked) == {0: 1, 1: 1, 2: 1}
    assert [a == b for a, b in zip(base, mixed, strict=True)] == [True] * 3 + [False] * 3 + [True] * 2
    assert len(set(base)) == 8
    # nothing is left of the states before
    assert [image.tobytes() for image in galleries.draw(lambda client: None)] == base


def test_real_pictures_are_nearer_to_real_ones_than_noise_is(drawn_by: Any) -> None:
    galleries, _, _ = drawn_by
    floor = galleries.floor()
    assert floor["frechet"]["n"] == floor["kernel"]["n"] == 8
    found = galleries.distances(galleries.draw(lambda client: None))
    # of 8 pictures the Frechet distance is nearly all bias
    assert found["frechet"] > floor["frechet"]["mean"]
    assert found["kernel"] > floor["kernel"]["mean"] + 2 * floor["kernel"]["sd"]


def result(**rows: list[dict[str, float] | None]) -> PartitionResults:
    """Return rows with galleries in device mode, by seed, and one gallery and floor of the base for all seeds."""

    def record(found: dict[str, float] | None, **more: Any) -> StudyRecord:
        return study_record(status="finished", evaluations=[{"gallery": {"device": found, **more}}])

    floor = {"mean": 1.0, "sd": 0.25, "n": 1000, "splits": 10}
    base = record({"frechet": 8.0, "kernel": 0.8}, real={"frechet": floor, "kernel": floor})
    made = [RowResults("base", (0, 1, 2), dict.fromkeys(range(3), base))]
    for name, found in rows.items():
        made.append(RowResults(name, (0, 1, 2), {s: record(each) for s, each in enumerate(found)}))
    return PartitionResults("iid", tuple(made), {})


def test_the_table_of_galleries_by_hand() -> None:
    """Differences of 1, 2 and 3: 2 +- 4.303 / sqrt(3), t(0.975, 2) = 4.303 in tables."""
    fedit: list[dict[str, float] | None] = [{"frechet": 2.0, "kernel": 0.2}] * 3
    other: list[dict[str, float] | None] = [{"frechet": 2.0 + d, "kernel": 0.2} for d in (1, 2, 3)]
    table = gallery_table(result(fedit=fedit, other=other, edgeless=[None] * 3), (0, 1, 2), "device", "fedit")
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["real pictures", "base", "fedit", "other"]
    assert rows["real pictures"][0] == "1.00 (sd 0.25)"
    assert rows["base"][0] == "8.00"
    difference = rows["other"][1]
    assert isinstance(difference, Estimate)
    assert difference.mean == 2
    assert difference.high == pytest.approx(2 + 4.303 / 3**0.5, abs=1e-3)
    assert rows["fedit"][1] == "–"


def test_there_is_no_table_without_galleries() -> None:
    found = result(fedit=[{"frechet": 2.0, "kernel": 0.2}] * 3)
    record = study_record(status="finished", evaluations=[{"device": [1.0]}])
    bare = PartitionResults("iid", (RowResults("base", (0,), {0: record}), *found.rows[1:]), {})
    assert gallery_table(bare, (0,), "device", "fedit") is None
