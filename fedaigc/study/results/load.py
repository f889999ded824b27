"""The results of a study from its records, with the tuning that follows from them."""

from fedaigc.errors import UserError
from fedaigc.study.design.planned_runs import Prepared, make_plan
from fedaigc.study.results.records import by_hash, read_records
from fedaigc.study.results.summary import PartitionResults, collect


def read_results(prepared: Prepared) -> list[PartitionResults]:
    """Return the results of a study, by partition.

    Raises:
        UserError: Nothing is recorded.
    """
    folder = prepared.study.records_folder
    records = read_records(folder)
    if not records:
        raise UserError(f"no records in {folder}: run the study first")
    plan = make_plan(prepared, by_hash(records))
    runs = [run for run in plan.runs if run.purpose == "report"]
    expected = {(run.label, run.partition, run.seed): run.hash for run in runs}
    return collect(prepared.study, records, expected, plan.choices)
