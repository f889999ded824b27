"""The id of a run changes with everything that determines its result, and with nothing else."""

import ast
from pathlib import Path
from typing import Any

import pytest

from fedaigc.strategy.code_files import _fingerprint
from fedaigc.strategy.code_text import _text
from fedaigc.study.design.config import StudyConfig, read_study
from fedaigc.study.design.planned_runs import make_plan, prepare
from fedaigc.study.design.runs import RunSpec
from fedaigc.study.execute.provenance import code_of
from fedaigc.study.results.records import by_hash, read_records, recorded
from tests.study.conftest import MakeStudy

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
        {"adapter": {"target_modules": ["to_q"]}},
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
        {"training": {"local_steps": 99}},  # every client has its epochs
        {"clients": {"partitions": {"iid": None, "same": {"kind": "iid", "size_skew": "linear"}}}},
        {"evaluation": {"validation_images": 9}},
        {"strategies": [{"name": "ditto", "label": "mine", "cost": 2.0}, ROWS[1]]},
        {"strategies": [{"name": "ditto", "options": {"mu": 0.1}}, ROWS[1], {"name": "scaffold"}]},
    ],
)
def test_what_does_not_matter_keeps_it(make_study: MakeStudy, changes: dict[str, Any]) -> None:
    """Options equal to the rule's defaults count as given, since other defaults would change the run."""
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
    assert run_of(make_study(**changes)).hash != before.hash


RULE = """
from fedaigc.strategy.rule import Rule

class Strategy(Rule):
    def weight(self, update: Update, *, share: float = 1.0) -> float:
        return update.num_examples * share
"""


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""What."""\n# why\n' + RULE, True),
        (RULE.replace("    def weight", '    """How."""\n\n    def weight'), True),
        (RULE.replace("federation.rule", "strategy.rule.averaging"), True),
        (RULE.replace("update: Update", "update: LocalUpdate").replace("-> float", '-> "float | int"'), True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n" + RULE, True),
        (RULE.replace("* share", "+ share"), False),
        (RULE.replace("1.0", "2.0"), False),
        (RULE.replace("(Rule)", "(Rule, Other)"), False),
        ("if True:\n    x = 1\n" + RULE, False),
        ("from dataclasses import dataclass\n@dataclass\nclass Own:\n    x: int\n" + RULE, False),
    ],
)
def test_the_code_of_a_rule_is_what_it_does(text: str, same: bool) -> None:
    """Imports, descriptions and annotations do not count."""
    assert (_fingerprint([ast.parse(text)]) == _fingerprint([ast.parse(RULE)])) is same


def test_the_text_that_is_hashed_is_the_same_under_every_python() -> None:
    """By hand: without fields that only some versions have or write."""
    text = _text(ast.parse("@d\ndef f(a, *, b=1):\n    return g(a)[0]"))
    assert text == (
        "Module(body=[FunctionDef(name='f', args=arguments(args=[arg(arg='a')], kwonlyargs=[arg(arg='b')], "
        "kw_defaults=[Constant(value=1)]), body=[Return(value=Subscript(value=Call("
        "func=Name(id='g', ctx=Load()), args=[Name(id='a', ctx=Load())]), "
        "slice=Constant(value=0), ctx=Load()))], "
        "decorator_list=[Name(id='d', ctx=Load())])])"
    )


def test_the_code_is_that_of_the_rule_alone() -> None:
    assert code_of("fedit")["rule"] != code_of("ditto")["rule"]
    # Flower's are known by Flower's version and our defaults
    assert code_of("fedmedian")["defaults"] == "{}"
    assert code_of("multikrum")["defaults"] != code_of("krum")["defaults"]
    assert "flwr" in code_of("krum")
    assert "flwr" not in code_of("ditto")


def test_a_release_changes_no_id_and_another_epoch_changes_all(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashes() -> set[str]:
        return {run.hash for run in make_plan(prepare(make_study(strategies=ROWS)), {}).runs}

    before = hashes()
    monkeypatch.setattr("fedaigc.__version__", "99.0")
    assert hashes() == before
    monkeypatch.setattr("fedaigc.study.execute.provenance.RESULT_EPOCH", 99)
    assert not hashes() & before
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["bytes", "galleries", "strategies"])
def test_the_committed_studies_are_wholly_recorded(name: str) -> None:
    """Renaming or moving code does not make a recorded run another run."""
    study = read_study(Path(__file__).parents[3] / "experiments" / "configs" / f"{name}.toml")
    records = by_hash(read_records(study.records_folder))
    plan = make_plan(prepare(study), records)
    assert not plan.later
    assert [run.id for run in plan.runs if not recorded(records, run)] == []


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
    assert personal(strategies=rules, training={"local_steps": 3}, reference="scaffold") == personal()
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
    assert pooled.federation["clients"]["local_steps"] == [sum(strategy.federation["clients"]["local_steps"])]
    assert pooled.federation["num_clients"] == 1
    drawn = run_of(make_study(rounds={"clients": 2}), "pooled")
    steps = sum(strategy.federation["clients"]["local_steps"])
    assert drawn.federation["clients"]["local_steps"] == [round(steps * 2 / 3)]
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
