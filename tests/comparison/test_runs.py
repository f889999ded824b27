"""The id of a run changes with what decides its result, and with nothing else."""

import ast
from pathlib import Path
from typing import Any

import pytest

from fedaigc.comparison.code import code_of, model_fingerprint
from fedaigc.comparison.plan import make_plan, prepare
from fedaigc.comparison.runs import RunSpec
from fedaigc.comparison.study import StudyConfig
from fedaigc.federation import strategy_code

from .conftest import MakeStudy

ROWS = [{"name": "ditto"}, {"name": "fedit"}]


def run_of(study: StudyConfig, label: str = "ditto") -> RunSpec:
    return next(run for run in make_plan(prepare(study), {}).runs if run.label == label)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1]},
        {"rounds": {"count": 3}},
        {"rounds": {"upload_format": "int8"}},
        {"rounds": {"clients": 2}},
        {"rounds": {"dropout_rate": 0.5}},
        {"training": {"learning_rate": 2e-2}},
        {"training": {"optimizer": "sgd"}},
        {"personal": "each run"},
        {"adapter": {"rank": 4}},
        {"adapter": {"boundary_timestep": 400}},
        {"clients": {"images": 25}},
        {"clients": {"seed": 1}},
        {"clients": {"new": [2]}},
        {"clients": {"local_epochs": 2.0}},
        {"clients": {"styles": ["noto"]}},
        {"clients": {"partitions": {"iid": {"size_skew": "equal"}}}},
        {"evaluation": {"triples": 7}},
        {"evaluation": {"test_images": 5}},
        {"evaluation": {"every": 2}},
        {"strategies": [{"name": "ditto", "options": {"mu": 0.5}}, ROWS[1]]},
        {"strategies": [{"name": "ditto", "settings": {"training.batch_size": 3}}, ROWS[1]]},
    ],
)
def test_what_matters_changes_the_id(make_study: MakeStudy, changes: dict[str, Any]) -> None:
    before = run_of(make_study(strategies=ROWS))
    assert run_of(make_study(**{"strategies": ROWS, **changes})).hash != before.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"workers": 7},
        {"output": "elsewhere"},
        {"records": "kept"},
        {"keep_work": False},
        {"seeds": [0, 5]},
        {"personal": "once"},
        {"rounds": {"tensorboard": True}},
        {"training": {"shared_steps": 99}},  # every client has its epochs
        {"clients": {"partitions": {"iid": None, "same": {"kind": "iid", "size_skew": "linear"}}}},
        {"evaluation": {"validation_images": 9}},
        {"strategies": [{"name": "ditto", "label": "mine", "cost": 2.0}, ROWS[1]]},
        {"strategies": [{"name": "ditto", "options": {"mu": 0.1}}, ROWS[1], {"name": "scaffold"}]},
    ],
)
def test_what_does_not_matter_keeps_it(make_study: MakeStudy, changes: dict[str, Any]) -> None:
    """Options that are the rule's defaults count as given: another default tomorrow would be another run."""
    label = "mine" if "mine" in str(changes) else "ditto"
    kept = "options" not in str(changes)
    before = run_of(make_study(strategies=ROWS))
    after = run_of(make_study(**{"strategies": ROWS, **changes}), label)
    assert (after.hash == before.hash) == kept


def test_a_model_counts_by_its_files_and_not_by_its_place(
    make_study: MakeStudy, small_model: Path, tmp_path: Path
) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(small_model, moved)
    before = run_of(make_study(strategies=ROWS))
    changes = {"strategies": ROWS, "model": {"name": str(moved)}}
    assert run_of(make_study(**changes)).hash == before.hash
    (moved / "model_index.json").write_text((moved / "model_index.json").read_text() + "\n")
    model_fingerprint.cache_clear()
    assert run_of(make_study(**changes)).hash != before.hash


def test_the_code_of_a_rule_counts_without_its_docstrings_and_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))

    def fingerprint(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return ast.dump(strategy_code._without_docstrings(name))

    plain = fingerprint("rule_a", "def f(x):\n    return x + 1\n")
    assert fingerprint("rule_b", '"""What."""\n# why\ndef f(x):\n    """How."""\n    return x + 1\n') == plain
    assert fingerprint("rule_c", "def f(x):\n    return x + 2\n") != plain


def test_the_code_is_that_of_the_rule_alone() -> None:
    assert code_of("fedit")["rule"] != code_of("ditto")["rule"]
    assert code_of("fedprox") == code_of("krum")
    assert "flwr" in code_of("krum")
    assert "flwr" not in code_of("ditto")


def test_the_base_depends_on_model_boundary_and_test_pictures_only(make_study: MakeStudy) -> None:
    def base(**changes: Any) -> str:
        return run_of(make_study(**changes), "base").hash

    trained = {"rounds": {"count": 9}, "training": {"learning_rate": 1.0}, "adapter": {"rank": 4}}
    assert base(**trained, seeds=[7]) == base()
    assert base(adapter={"boundary_timestep": 400}) != base()
    assert base(evaluation={"triples": 9}) != base()


def test_the_personal_stage_depends_on_no_rule(make_study: MakeStudy) -> None:
    def personal(**changes: Any) -> str:
        return run_of(make_study(personal="once", **changes), "personal").hash

    rules = [{"name": "scaffold"}, {"name": "fedit"}]
    assert personal(strategies=rules, training={"shared_steps": 3}, reference="scaffold") == personal()
    assert personal(training={"personal_steps": 2}) != personal()
    assert personal(rounds={"count": 3}) != personal()
    assert personal(seeds=[3]) != personal()


def test_a_run_comes_back_from_its_job_file(make_study: MakeStudy) -> None:
    for run in make_plan(prepare(make_study(strategies=ROWS, tuning={"trials": 2})), {}).later:
        again = RunSpec.model_validate_json(run.model_dump_json())
        assert again == run
        assert again.id == run.id


def test_pooled_trains_as_many_steps_as_all_clients_together(make_study: MakeStudy) -> None:
    """7, 5 and 2 images, 0.7 epochs of batches of 2: 2, 2 and 1 steps; drawing two of three, two thirds."""
    study = make_study()
    strategy, pooled = run_of(study, "fedit"), run_of(study, "pooled")
    assert pooled.federation["clients"]["shared_steps"] == [
        sum(strategy.federation["clients"]["shared_steps"])
    ]
    assert pooled.federation["num_clients"] == 1
    drawn = run_of(make_study(rounds={"clients": 2}), "pooled")
    steps = sum(strategy.federation["clients"]["shared_steps"])
    assert drawn.federation["clients"]["shared_steps"] == [round(steps * 2 / 3)]
    assert drawn.federation["rounds"]["clients"] is None


def test_mixed_ranks_keep_the_scale(make_study: MakeStudy) -> None:
    """alpha = 3 at rank 2 is s = 1.5; the largest rank, 4, has alpha = 6."""
    study = make_study(
        adapter={"alpha": 3.0},
        clients={"ranks": [4, 2, 1, 8]},
        strategies=[{"name": "fedit"}, {"name": "flexlora", "mixed_ranks": True}],
    )
    run = run_of(study, "flexlora")
    assert run.federation["clients"]["ranks"] == [4, 2, 1]
    assert (run.federation["adapter"]["rank"], run.federation["adapter"]["alpha"]) == (4, 6.0)
    assert run_of(study, "fedit").federation["clients"]["ranks"] is None
