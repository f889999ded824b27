"""A planner that serves a stream in which tasks leave, executors fail and deadlines end; prints JSON.

    python -m experiments.planner.service --record experiments/records/planner/service.json
    python -m experiments.planner.service --log calls.csv        # timestamp, user, prompt

Prompts are captions of Scenes with Zipf popularity (exponent 1), calls come in bursts, and devices are of three
classes. A log takes their place with --log. A member of each node runs its steps. Times are simulated:

- half of the tasks have a deadline, between .8 and 4 times the seconds that their device takes alone;
- one task in twenty is withdrawn, ten seconds after its call on average; where it has departed, it is answered;
- each executor of a tree fails with probability `FAILS`. What it was to run, and all that was to follow, has no packet.
  `NOTICED` seconds after the departure, the members of these nodes begin anew, alone. What the executor was to run
  counts as run.

The command stops with an error if a prompt is answered twice or never, if one that waits is given away, or if a task
misses in its tree a deadline that it would meet alone. Then it draws the pictures of the first `--draw` tasks of trees,
of those alone among them and of those whose executor failed, as they were answered, and the judge compares them with
pictures drawn alone.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fedaigc
from experiments.planner.arrivals import Call, bursts, poisson, read_log
from experiments.planner.output import write
from experiments.planner.pictures import STEPS, Pictures, Way, ways_of
from experiments.quality.sampling import one_thread
from experiments.streams.popular import captions, targets
from fedaigc import assets
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import finish_seconds, misses_deadline
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.plan import Plan
from fedaigc.planning.setting import Link, Machine, Machines, Setting, Weights
from fedaigc.planning.stream import Arrival, Departure, Stream
from fedaigc.rng import derived_seed, numpy_rng
from fedaigc.semantics.denoiser.calibration import RISK, TOLERANCE, Calibration
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi
from fedaigc.semantics.denoiser.shipped import SCENES_CALIBRATION
from fedaigc.wireless.profiles import PHONE

LADDER = (1, 2, 3, 4, 5, 6, 8, 10)
FAILS, NOTICED = 0.05, 10.0
WITHDRAWN, STAYS = 0.05, 10.0
DUE, ALONE_TIMES = 0.5, (0.8, 4.0)
CLASSES = (
    Machine("phone", PHONE.step_s, PHONE.step_j, image_s=PHONE.decode_s, image_j=PHONE.decode_j),
    Machine(
        "slower phone", 2 * PHONE.step_s, PHONE.step_j, image_s=2 * PHONE.decode_s, image_j=PHONE.decode_j
    ),
    Machine("laptop", PHONE.step_s / 5, PHONE.step_j, image_s=PHONE.decode_s / 5, image_j=PHONE.decode_j),
)
SHARE_OF_CLASSES = (0.5, 0.3, 0.2)
MACHINES = Machines(devices=CLASSES, link=Link(bits=16_384, seconds=0.1), executor="member")


@dataclass(frozen=True, eq=False)
class Answered:
    """Tasks that departed together, and who of them had to begin anew.

    Attributes:
        departure: The tasks and their plan.
        now: Time of the departure.
        anew: Rows of those whose executor failed.
        finished: Time at which each picture is finished.
    """

    departure: Departure
    now: float
    anew: np.ndarray
    finished: np.ndarray


@dataclass(eq=False)
class Ledger:
    """What became of each task.

    Attributes:
        waiting: Ids of the tasks that called, and were neither answered nor withdrawn.
        answered: Ids of those that were answered.
        withdrawn: Ids of those that left before.
    """

    waiting: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)

    def called(self, task: str) -> None:
        """Take a new task.

        Raises:
            RuntimeError: If it called before.
        """
        if task in self.waiting or task in self.answered or task in self.withdrawn:
            raise RuntimeError(f"task {task} called twice")
        self.waiting.add(task)

    def close(self, task: str, into: set[str]) -> None:
        """Put a task among the answered or the withdrawn.

        Raises:
            RuntimeError: If it does not wait.
        """
        if task not in self.waiting:
            raise RuntimeError(f"task {task} is answered or withdrawn a second time, or never called")
        self.waiting.remove(task)
        into.add(task)


def below(plan: Plan, failed: set[str | int]) -> np.ndarray:
    """Return the rows of the tasks of nodes whose executor failed, or that stand below such a node."""
    lost: set[int] = set()
    rows: set[int] = set()
    for index, node in enumerate(plan.nodes):
        if node.executor in failed or node.parent in lost:
            lost.add(index)
            rows |= set(node.members.tolist())
    return np.array(sorted(rows), int)


def answered(departure: Departure, setting: Setting, now: float, random: np.random.Generator) -> Answered:
    """Return what becomes of a departure when some of its executors fail."""
    plan, tasks = departure.plan, departure.tasks
    executors = sorted({node.executor for node in plan.nodes}, key=repr)
    failed = {each for each in executors if random.random() < FAILS}
    anew = below(plan, failed)
    finished = now + finish_seconds(plan, tasks, setting)
    alone = finish_seconds(Plan((), np.zeros(len(tasks), int)), tasks, setting)
    finished[anew] = now + NOTICED + alone[anew]
    return Answered(departure, now, anew, finished)


def serve(
    calls: Sequence[Call], vectors: dict[str, np.ndarray], setting: Setting, window: float, seed: int
) -> tuple[Ledger, list[Answered]]:
    """Serve all calls.

    Raises:
        RuntimeError: If a task is answered twice or never, a plan has a fault, or sharing makes a task late.
    """
    random = numpy_rng(seed, "service")
    devices = setting.machines.devices
    share = np.array(SHARE_OF_CLASSES)
    class_of = random.choice(len(devices), max(call.user for call in calls) + 1, p=share / share.sum())
    events: list[tuple[float, int, str, Arrival | None]] = []
    for row, call in enumerate(calls):
        kind = int(class_of[call.user])
        alone = STEPS * devices[kind].step_s + devices[kind].image_s
        due = call.time + alone * random.uniform(*ALONE_TIMES) if random.random() < DUE else np.inf
        task = Arrival(str(row), vectors[call.prompt], call.time, call.user, due, kind)
        events.append((call.time, row, task.id, task))
        if random.random() < WITHDRAWN:
            events.append((call.time + random.exponential(STAYS), row, task.id, None))
    events.sort(key=lambda event: event[:2])
    stream, ledger, found = Stream(setting, window), Ledger(), []

    def depart(until: float) -> None:
        # at the very moment at which a task is due, since a deadline may hang on it
        while len(stream) and stream.next_due <= until:
            now = stream.next_due
            for departure in stream.depart(now):
                faults = check_plan(departure.plan, departure.tasks, setting, now)
                if faults:
                    raise RuntimeError(f"{faults[:5]}")
                for task_id in departure.tasks.ids:
                    ledger.close(task_id, ledger.answered)
                found.append(answered(departure, setting, now, random))

    for time, _, task_id, new in events:
        depart(time)
        if new is not None:
            ledger.called(task_id)
            stream.arrive(new)
        elif task_id in ledger.waiting:
            stream.withdraw(task_id)
            ledger.close(task_id, ledger.withdrawn)
    depart(np.inf)
    if ledger.waiting or len(stream) or len(ledger.answered) + len(ledger.withdrawn) != len(calls):
        raise RuntimeError(f"{len(ledger.waiting)} tasks of {len(calls)} were neither answered nor withdrawn")
    return ledger, found


def drawn_calls(number: int, rate: float, users: int, seed: int, *, in_bursts: bool) -> list[Call]:
    """Return calls for captions of Scenes.

    Args:
        number: The number of calls.
        rate: Calls a second.
        users: The number of users; who calls is drawn evenly.
        seed: The seed.
        in_bursts: Whether they come in bursts, or evenly.
    """
    random = numpy_rng(seed, "calls")
    times = (bursts if in_bursts else poisson)(number, rate, random)
    texts = random.permutation(captions())
    weights = 1 / np.arange(1, len(texts) + 1)
    asked = random.choice(len(texts), number, p=weights / weights.sum())
    who = random.integers(users, size=number)
    return [
        Call(float(time), int(user), str(texts[row]))
        for time, user, row in zip(times, who, asked, strict=True)
    ]


def counted(
    calls: Sequence[Call], ledger: Ledger, found: Sequence[Answered], setting: Setting
) -> dict[str, Any]:
    """Return how many tasks were answered how, and what it cost."""
    told = {
        "shared": 0,
        "alone": 0,
        "executor failed": 0,
        "with a deadline": 0,
        "late though alone in time": 0,
        "late, and alone as well": 0,
        "late since an executor failed": 0,
    }
    evaluations = 0
    for each in found:
        plan, tasks = each.departure.plan, each.departure.tasks
        anew = np.isin(np.arange(len(tasks)), each.anew)
        # a microsecond is rounding
        late = each.finished > tasks.deadlines + 1e-6
        hopeless = misses_deadline(Plan((), np.zeros(len(tasks), int)), tasks, setting, each.now)
        told["shared"] += int(((plan.handoffs > 0) & ~anew).sum())
        told["alone"] += int(((plan.handoffs == 0) & ~anew).sum())
        told["executor failed"] += int(anew.sum())
        told["with a deadline"] += int(np.isfinite(tasks.deadlines).sum())
        told["late, and alone as well"] += int((late & hopeless).sum())
        told["late since an executor failed"] += int((late & ~hopeless & anew).sum())
        told["late though alone in time"] += int((late & ~hopeless & ~anew).sum())
        evaluations += sum(node.stop - node.start for node in plan.nodes)
        evaluations += int((STEPS - plan.handoffs[~anew]).sum()) + STEPS * int(anew.sum())
    return {
        "calls": len(calls),
        "answered": len(ledger.answered),
        "withdrawn": len(ledger.withdrawn),
        "departures": len(found),
        **told,
        "steps saved": 1 - evaluations / (STEPS * len(ledger.answered)),
    }


def sampled(found: Sequence[Answered], number: int) -> list[Answered]:
    """Return departures with so many tasks or a few more: first those with a failure, then trees, then the others."""
    order = sorted(found, key=lambda each: (not len(each.anew), not each.departure.plan.nodes))
    kinds = [
        [each for each in order if len(each.anew)],
        [each for each in order if not len(each.anew) and each.departure.plan.nodes],
        # where too few are alone, others in their place
        sorted(order, key=lambda each: bool(each.departure.plan.nodes)),
    ]
    chosen: list[Answered] = []
    for kind, part in zip(kinds, (0.25, 0.75, 1.0), strict=True):
        for each in kind:
            if sum(len(one.departure.tasks) for one in chosen) >= part * number:
                break
            if not any(each is one for one in chosen):
                chosen.append(each)
    return chosen


def pictures_of(
    pictures: Pictures, chosen: Sequence[Answered], calls: Sequence[Call], seed: int
) -> dict[str, Any]:
    """Return what the judge finds in the pictures of some departures, and in those of the same prompts alone."""
    ways: dict[str, Way] = {}
    alone: dict[str, Way] = {}
    for each in chosen:
        tasks = each.departure.tasks
        prompts = [calls[int(task)].prompt for task in tasks.ids]
        noises = [derived_seed(seed, "service", int(task)) % 2**32 for task in tasks.ids]
        own = [Way(noise, ((prompt,),) * STEPS) for noise, prompt in zip(noises, prompts, strict=True)]
        shared = ways_of(each.departure.plan, tasks, prompts, noises, STEPS)
        for row, task in enumerate(tasks.ids):
            if task in ways:
                raise RuntimeError(f"task {task} is drawn twice")
            alone[task] = own[row]
            ways[task] = own[row] if row in each.anew else shared[row]
    seen = pictures.verdicts([*ways.values(), *alone.values()])
    wanted = targets()

    def found(way: Way, task: str) -> int:
        thing, place = wanted[calls[int(task)].prompt]
        return int(seen[way].object == thing and seen[way].place == place)

    tasks_ = sorted(ways, key=int)
    served, solo = [found(ways[t], t) for t in tasks_], [found(alone[t], t) for t in tasks_]
    objects = [wanted[calls[int(t)].prompt][0] for t in tasks_]
    return {
        "pictures": len(tasks_),
        "of trees": sum(ways[t] != alone[t] for t in tasks_),
        "begun anew": sum(len(each.anew) for each in chosen),
        "both": sum(served) / len(served),
        "both alone": sum(solo) / len(solo),
        "minus alone": clustered_mean([a - b for a, b in zip(served, solo, strict=True)], objects).as_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=2.0, help="calls a second")
    parser.add_argument("--evenly", action="store_true", help="a Poisson process without bursts")
    parser.add_argument("--window", type=float, default=20.0, help="seconds that a task waits at most")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--log", type=Path, help="CSV with the columns timestamp, user and prompt")
    parser.add_argument("--draw", type=int, default=200, help="tasks whose pictures are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    one_thread()
    calls = (
        drawn_calls(options.tasks, options.rate, options.users, options.seed, in_bursts=not options.evenly)
        if options.log is None
        else read_log(options.log)
    )
    pictures = Pictures.open()
    space = DenoiserSpace.of(pictures.plan)
    calibration = Calibration.read(assets.path(SCENES_CALIBRATION))
    calibration.check_fits(space.hash, pictures.plan)
    curve = DamageCurve.of_risk(calibration, TOLERANCE, LADDER)
    setting = Setting(curve, RISK, MACHINES, Weights.evaluations(len(CLASSES)))
    texts = sorted({call.prompt for call in calls})
    vectors = dict(zip(texts, phi(pictures.pipe, space, texts), strict=True))
    ledger, found = serve(calls, vectors, setting, options.window, options.seed)
    judged = None
    # the judge knows captions of Scenes alone
    if options.draw and options.log is None:
        judged = pictures_of(pictures, sampled(found, options.draw), calls, options.seed)
    write(
        {
            "what": "a stream with withdrawals, failures of executors and deadlines",
            "fedaigc": fedaigc.__version__,
            "base": pictures.plan.base_hash,
            "arrivals": "log" if options.log else "evenly" if options.evenly else "in bursts",
            "rate": options.rate,
            "window": options.window,
            "risk": RISK,
            "executors fail": FAILS,
            "seed": options.seed,
            **counted(calls, ledger, found, setting),
            "drawn": judged,
        },
        options.record,
    )


if __name__ == "__main__":
    main()
