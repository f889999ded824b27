"""Ask the members of groups for what their shared steps run on, before these are planned.

For a mean, each member first announces a key, and then gives its conditioning under masks that cancel in the sum: see
`collaboration.secure_sum`. Devices that announce no key are left out of it. A member that vanishes afterwards costs its
group the mean: its steps then run on the public prompt.
"""

import secrets
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import RecordDict
from jaxtyping import Float

from fedaigc.collaboration.conditioning import GroupConditioning
from fedaigc.collaboration.secure_sum import fixed_point
from fedaigc.collaboration.secure_sum.masks import MIN_MEMBERS, Announced, check_key
from fedaigc.device.replies import Failure
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.conditioning import check_conditioning, placed, prompt_conditioning
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.progress import Stage
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.wire import sum_messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from fedaigc.semantics.denoiser.sharing_distance import phi_of
from fedaigc.semantics.grouping import Group

_KEYS = Stage("keys of sums")
_GIVEN = Stage("conditionings")
_TRIED = "an apple on a table"


def check_run_conditioning(pipe: Pipeline, plan: DenoisingPlan, config: FederationConfig) -> None:
    """Check, before a run, that its groups can run on what `generation.denoiser.conditioning` names.

    Raises:
        UserError: If the pipeline cannot run on embeddings alone, or if "member" is asked of separate machines.
    """
    section = config.generation.denoiser
    if section is None or section.conditioning == "public":
        return
    if section.conditioning == "member" and config.bindings is not None:
        raise UserError(
            'generation.denoiser.conditioning = "member" sends the embeddings of a prompt as they are, and with them '
            'the prompt: it is for simulations; on separate machines set it to "mean" or "public"'
        )
    check_conditioning(pipe, plan, _TRIED)


def group_conditionings(
    groups: Sequence[Group],
    owners: Mapping[str, int],
    config: FederationConfig,
    roster: Roster,
    pipe: Pipeline,
) -> dict[str, GroupConditioning]:
    """Return what the shared steps of each task's group run on, by task id.

    Groups of one task, and all groups where the run asks for public prompts, are left out.

    Args:
        groups: The groups.
        owners: Client of each task.
        config: The configuration.
        roster: The devices.
        pipe: The server's pipeline, whose text encoder gives the form of a conditioning.
    """
    section = config.generation.denoiser
    shared = [group for group in groups if len(group.members) > 1]
    if section is None or section.conditioning == "public" or not config.generation.num_shared_steps:
        return {}
    asking = _Asking(roster, owners, config.generation.deadline_s)
    if section.conditioning == "member":
        found = _of_members(shared, asking, pipe)
    else:
        found = _means(shared, asking, pipe, with_noise=section.noise_epsilon is not None)
    return {task: found[min(group.members)] for group in shared for task in group.members}


def vectors_of(
    pipe: Pipeline, config: FederationConfig, conditionings: Mapping[str, GroupConditioning]
) -> dict[str, Float[np.ndarray, " d"]]:
    """Return, by task, the vector of what its group's steps run on, where that is no public caption.

    The vectors are those of the base model, in the space of the sharing distance. The adapters of the pipeline are
    removed.
    """
    found: dict[str, Float[np.ndarray, " d"]] = {}
    known: dict[int, Float[np.ndarray, " d"]] = {}
    for task, conditioning in conditionings.items():
        if conditioning.tensors is None:
            continue
        if id(conditioning) not in known:
            put_adapters(pipe, None, None)
            space = node_disclosure(config).space
            (known[id(conditioning)],) = phi_of(pipe, space, placed(pipe, conditioning.tensors))
        found[task] = known[id(conditioning)]
    return found


class _Asking:
    """Sends the orders of all groups at once."""

    def __init__(self, roster: Roster, owners: Mapping[str, int], deadline_s: float | None) -> None:
        self._roster = roster
        self._deadline_s = deadline_s
        self.owners = owners

    def keys(self, orders: Sequence[KeyOrder]) -> list[Announced | None]:
        """Return the announced keys; None for a device that gave none."""
        records = [(order.task_id, sum_messages.key_order_record(order)) for order in orders]
        return [_key(reply) for reply in self._ask(Ask.KEYS, records, _KEYS)]

    def given(self, orders: Sequence[MaskOrder]) -> list[RecordDict | Failure]:
        """Return the replies to orders to give a conditioning."""
        records = [(order.task_id, sum_messages.mask_order_record(order)) for order in orders]
        return self._ask(Ask.MASKED, records, _GIVEN)

    def devices(self, tasks: Sequence[str]) -> int:
        """Return the number of devices that the tasks belong to."""
        return len({self.owners[task] for task in tasks})

    def _ask(
        self, kind: Ask, records: Sequence[tuple[str, RecordDict]], stage: Stage
    ) -> list[RecordDict | Failure]:
        if not records:
            return []
        asked = [(self.owners[task], record) for task, record in records]
        return self._roster.ask_many(kind, asked, stage, self._deadline_s)


def _of_members(groups: Sequence[Group], asking: _Asking, pipe: Pipeline) -> dict[str, GroupConditioning]:
    """Ask the first member of each group for its conditioning, as it is; by the group's smallest task id."""
    orders = [MaskOrder(min(group.members), secrets.token_hex(16), group.prompt, ()) for group in groups]
    found = {}
    for group, reply in zip(groups, asking.given(orders), strict=True):
        public = prompt_conditioning(pipe, group.prompt)
        vector = _vector(reply, fixed_point.num_values(public))
        if vector is None:
            conditioning = GroupConditioning(fell_back="vanished")
        else:
            tensors = fixed_point.unflat(fixed_point.decode_mean(vector, 1), public)
            conditioning = GroupConditioning("member", tensors, 1)
        found[min(group.members)] = conditioning
    return found


def _means(
    groups: Sequence[Group], asking: _Asking, pipe: Pipeline, *, with_noise: bool
) -> dict[str, GroupConditioning]:
    """Return the means, by the groups' smallest task ids."""
    found = {min(group.members): GroupConditioning(fell_back="too few devices") for group in groups}
    numbers = {min(group.members): secrets.token_hex(16) for group in groups}
    large = [group for group in groups if asking.devices(group.members) >= MIN_MEMBERS]
    wanted = [KeyOrder(task, numbers[min(group.members)]) for group in large for task in group.members]
    announced = {
        order.task_id: key for order, key in zip(wanted, asking.keys(wanted), strict=True) if key is not None
    }
    orders: list[MaskOrder] = []
    summed: list[tuple[Group, list[str]]] = []
    for group in large:
        tasks = [task for task in group.members if task in announced]
        keys = [announced[task] for task in tasks]
        if asking.devices(tasks) < MIN_MEMBERS or len({key.key for key in keys}) < len(keys):
            continue
        summed.append((group, tasks))
        number = numbers[min(group.members)]
        orders += [MaskOrder(task, number, group.prompt, tuple(keys)) for task in tasks]
    replies = dict(zip([order.task_id for order in orders], asking.given(orders), strict=True))
    for group, tasks in summed:
        given = [replies.pop(task) for task in tasks]
        found[min(group.members)] = _mean(group, given, pipe, with_noise=with_noise)
    return found


def _mean(
    group: Group, replies: Sequence[RecordDict | Failure], pipe: Pipeline, *, with_noise: bool
) -> GroupConditioning:
    public = prompt_conditioning(pipe, group.prompt)
    vectors = [_vector(reply, fixed_point.num_values(public)) for reply in replies]
    total = np.zeros(fixed_point.num_values(public), np.uint64)
    for vector in vectors:
        if vector is None:
            return GroupConditioning(fell_back="vanished")
        total += vector
    try:
        mean = fixed_point.decode_mean(total, len(vectors))
    except ValueError:
        return GroupConditioning(fell_back="unreadable")
    if with_noise:
        mean += fixed_point.flat(public)
    return GroupConditioning("mean", fixed_point.unflat(mean, public), len(vectors))


def _key(reply: RecordDict | Failure) -> Announced | None:
    if isinstance(reply, Failure):
        return None
    try:
        announced = sum_messages.read_key(reply)
        check_key(announced.key)
    except (KeyError, TypeError, ValueError, UserError):
        return None
    return announced


def _vector(reply: RecordDict | Failure, count: int) -> np.ndarray | None:
    if isinstance(reply, Failure):
        return None
    try:
        return sum_messages.read_masked(reply, count)
    except (KeyError, TypeError, ValueError):
        return None
