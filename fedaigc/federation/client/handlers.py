"""Handlers of a device for each kind of message, the same in a simulation and behind a resident agent.

A handler gets the device from its host and returns a reply of the closed list in docs/threats.md ("What a device
sends"). The text of an error never leaves the device: only the kind of failure crosses, and the full text stays in the
home.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from flwr.app import RecordDict

from fedaigc.bounds import MAX_TASKS_OF_A_DEVICE, MAX_TRAINING_STEPS
from fedaigc.counting import counted
from fedaigc.device.node_answers import node_signature, taken_step
from fedaigc.device.replies import DeviceError, Failure, failure_of, reading_an_order, refusing
from fedaigc.device.training.training_limits import TrainingOrder, check_order
from fedaigc.device.training.update_clipping import clipped
from fedaigc.errors import NotFinite, UserError
from fedaigc.federation.client import equality, sums
from fedaigc.federation.client.host import Host as Host
from fedaigc.federation.client.host import check_discloses
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.preloaded import scorer_of
from fedaigc.federation.software import own_software
from fedaigc.federation.wire import generation_messages, messages
from fedaigc.federation.wire.messages import Ask, body
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.policy import Policy
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Rule

# the outcome may depend on a private prompt: all replies have one size, and all failures are the same
_OF_ONE_SIZE = (Ask.FINISH, Ask.OFFER, Ask.KEYS, Ask.BLIND, Ask.EQUAL)

Handler = Callable[[RecordDict, Host, FederationConfig], RecordDict]


def answer(kind: Ask, content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Return the reply to a message.

    Errors of the message or the device are never raised: the reply contains their kind. The outcome of a task may
    depend on its private prompt, so all replies to an order to finish, to an offer, for a key or to an equality test
    have the same size and all their failures are the same, except in a simulation (`Failure.NOT_FINITE`).

    Args:
        kind: Kind of the message.
        content: Content of the message.
        host: The process in which the device answers.
        config: Configuration of the run.
    """
    try:
        reply = _HANDLERS[kind](content, host, config)
    except Exception as error:  # any error: its text may hold a prompt
        host.note(traceback.format_exc())
        if kind is Ask.FINISH and host.limits is None and isinstance(error, NotFinite):
            # one user owns all devices and prompts
            return generation_messages.of_one_size(messages.failure(Failure.NOT_FINITE))
        return refused(kind, error)
    return generation_messages.of_one_size(reply) if kind in _OF_ONE_SIZE else reply


def refused(kind: Ask, error: BaseException) -> RecordDict:
    """Return the reply for an error; it contains only what may be disclosed of the error."""
    failure = failure_of(error)
    if kind in (Ask.BLIND, Ask.EQUAL):
        failure = Failure.NOT_COMPARED
    elif kind in (Ask.FINISH, Ask.OFFER):
        failure = Failure.NOT_FINISHED
    elif kind in (Ask.KEYS, Ask.MASKED):
        # why may depend on the prompt
        failure = Failure.NOT_SUMMED
    reply = messages.failure(failure)
    return generation_messages.of_one_size(reply) if kind in _OF_ONE_SIZE else reply


def hello(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Report the client, its base model, its number of images, and the versions of its software.

    The number of images bounds the weight of the client's updates; in a run without training it is 0.
    """
    return body(
        **{messages.CLIENT: host.client},
        base=host.base_hash(),
        num_examples=_num_pictures(host) if config.rounds.count else 0,
        **own_software(),
    )


def _num_pictures(host: Host) -> int:
    """Count the private images; 0 for a home that cannot be read, which training then reports."""
    try:
        return len(host.open_device().images)
    except (DeviceError, UserError, OSError):
        return 0


def train(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Run one round of local training with the strategy's code as installed on this device."""
    with reading_an_order():
        received = messages.read_train(content)
        client, own_order = host.client, messages.read_client_order(content)
    if received.round < 1:
        raise DeviceError(Failure.TRAINING_REFUSED, "round numbers start at 1")
    if own_order.local_steps is not None:
        # put into the configuration, so that everything that bounds its local steps also bounds these
        config = config.with_local_steps(own_order.local_steps)
    if config.local_steps(client) > MAX_TRAINING_STEPS:
        raise DeviceError(Failure.TRAINING_REFUSED, f"more than {MAX_TRAINING_STEPS} training steps")
    if own_order.dropped_out:
        raise DeviceError(Failure.DROPPED_OUT, "selected by rounds.dropout_rate to fail in this round")
    with refusing(Failure.STRATEGY_REFUSED):
        rule = load_strategy(config.rounds.strategy, config.rounds.options)
        own = strategy_code(config.rounds.strategy)
    told = messages.strategy_code_of(content)
    if told != own:
        raise DeviceError(
            Failure.CODE_DIFFERS,
            f"strategy {config.rounds.strategy!r}: the server runs code {told!r:.80}, this device {own}",
        )
    device = host.open_device()
    device.versions.check_follows(config.run_key, received.round)
    budget = None
    if host.limits is not None:
        order = _order(received, config, client)
        check_order(order, host.limits, full_weights=rule.traits.full_weights)
        budget = device.budget(host.limits, order)
        if budget.rounds_before and not device.versions.holds_rounds:
            host.note(
                f"round {received.round} of run {config.name}: this device has trained "
                f"{counted(budget.rounds_before, 'round')}, and `adapters` in its home has nothing of them, so its "
                "personal adapter starts anew; to go on with "
                "the old one, stop the agent and restore the folder from a copy\n"
            )
    with refusing(Failure.STATE_REFUSED):
        device.accept(received.shared, residual=rule.traits.residual, limits=host.limits)
    with refusing(Failure.TRAINING_REFUSED):
        update = device.train(
            config.run_key,
            received,
            rule,
            config.training,
            local_steps=config.local_steps(client),
            personal_rank=config.adapter.rank,
            target_modules=config.adapter.target_modules,
            height=config.model.height,
            width=config.model.width,
            client=client,
            budget=budget,
            validation_fraction=config.rounds.validation_fraction,
        )
    update = replace(update, metrics=_disclosed(update.metrics, rule, exact=host.limits is None))
    if host.limits is not None:
        tensors, norm = clipped(update.tensors, received, host.limits.max_update_norm)
        update = replace(update, tensors=tensors)
        if norm > host.limits.max_update_norm:
            host.note(
                f"round {received.round} of run {config.name}: an update of norm {norm:.4g} was clipped to "
                f"{host.limits.max_update_norm:.4g}\n"
            )
    return messages.update_record(update, received, config.rounds.upload_format, own_order.random())


def _disclosed(metrics: Mapping[str, float], rule: Rule, *, exact: bool) -> dict[str, float]:
    """Return the losses that leave the device: to two decimals, except in a simulation.

    Two decimals are enough to follow training and too few to carry anything else. What a rule weighs clients by
    has two decimals in a simulation too, which then weighs as separate machines do.
    """
    return {
        name: value if exact and name not in rule.weighing_metrics else round(value, 2)
        for name, value in metrics.items()
    }


def _order(received: Received, config: FederationConfig, client: int) -> TrainingOrder:
    return TrainingOrder(
        run=config.name,
        received=received,
        strategy=config.rounds.strategy,
        options=config.rounds.options,
        training=config.training,
        local_steps=config.local_steps(client),
        personal_rank=config.adapter.rank,
        height=config.model.height,
        width=config.model.width,
        validation_fraction=config.rounds.validation_fraction,
    )


def install(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Keep a shared state for later generations and report its version."""
    with reading_an_order():
        shared = messages.read_shared_state(content)
    with refusing(Failure.STRATEGY_REFUSED):
        rule = load_strategy(config.rounds.strategy, config.rounds.options)
    device = host.open_device()
    with refusing(Failure.STATE_REFUSED):
        device.accept(shared, residual=rule.traits.residual, limits=host.limits)
    return body(version=device.receive(shared))


def signatures(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Report what may be disclosed of the waiting tasks, oldest first.

    At most `MAX_TASKS_OF_A_DEVICE` tasks are reported; the others follow at a later poll. Tasks of which
    nothing is disclosed get new names at every poll, so that no id links them. In a simulation this holds
    only under the policy `silent`, because noise seeds, and with them the records, depend on the ids.
    """
    device, settings = host.open_device(), config.generation
    policy, min_public_prompts = host.permitted(settings.policy, settings.min_public_prompts)
    asked = device.waiting()[:MAX_TASKS_OF_A_DEVICE]
    disclosed: dict[str, Disclosed | None]
    if policy is Policy.SILENT:
        disclosed = dict.fromkeys(asked)
    elif settings.denoiser is not None:
        nodes = host.node_disclosure(config)
        disclosed = {task_id: node_signature(device, task_id, nodes, host.limits) for task_id in asked}
    else:
        disclosed = {
            task_id: device.signature(
                task_id, policy, min_public_prompts=min_public_prompts, limits=host.limits
            )
            for task_id in asked
        }
    if host.limits is not None or policy is Policy.SILENT:
        alone = [task_id for task_id, signature in disclosed.items() if signature is None]
        names = device.prompts.names.fresh(alone, repeatable=host.limits is None)
        said = {task_id: signature for task_id, signature in disclosed.items() if signature is not None}
        disclosed = said | dict.fromkeys(names)
    return generation_messages.signatures_record(disclosed, device.unreadable())


def offer(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Say which of the offered hand-offs the device takes for a task."""
    check_discloses(host, config)
    device = host.open_device()
    offered = generation_messages.read_offer(content)
    return generation_messages.taken_record(
        taken_step(device, offered, host.node_disclosure(config), host.limits)
    )


def share(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Run the shared steps of a group and return the packet."""
    device = host.open_device()
    with reading_an_order(), refusing(Failure.PLAN_REFUSED):
        order = generation_messages.read_share(content, host.client, partial(device.plan, limits=host.limits))
    with refusing(Failure.PLAN_REFUSED):
        steps = device.share(
            order.task_id,
            order.group_prompt,
            order.plan,
            order.stop,
            noise_seed=order.noise_seed,
            handoff=config.generation.handoff,
            number_format=link.number_format if (link := config.generation.link) is not None else None,
            conditioning=order.conditioning,
        )
    return generation_messages.shared_steps_record(steps)


def finish(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Finish a task from its packet, or alone, and report."""
    settings = config.generation
    device = host.open_device(scorer_of(settings) if host.scores else None)
    if config.rounds.count and config.training.personal_steps:
        # where one user owns all devices, a run draws only with what it trained, so that it repeats
        device.versions.draw_as(config.run_key, alone=host.limits is None)
    order = generation_messages.read_finish(content, host.client, partial(device.plan, limits=host.limits))
    packet = order.packet if order.twins is None or order.packet is None else equality.opened(device, order)
    if packet is None:
        equality.forget(device, order.task_id)
        report = device.alone(order.task_id, order.noise_seed, order.plan, strip_steps=settings.strip_steps)
    else:
        report = device.finish(
            order.task_id,
            packet,
            order.plan,
            noise_seed=order.noise_seed,
            delivery=settings.delivery,
            mend=settings.link.mend if settings.link is not None else "nothing",
            errors=settings.link.known_errors if settings.link is not None else None,
            strip_steps=settings.strip_steps,
        )
    return generation_messages.report_record(report)


_HANDLERS: dict[Ask, Handler] = {
    Ask.HELLO: hello,
    Ask.TRAIN: train,
    Ask.INSTALL: install,
    Ask.SIGNATURES: signatures,
    Ask.OFFER: offer,
    Ask.KEYS: sums.announce,
    Ask.MASKED: sums.give,
    Ask.BLIND: equality.announce,
    Ask.EQUAL: equality.compare,
    Ask.TWINS: equality.run_for_twins,
    Ask.SHARE: share,
    Ask.FINISH: finish,
}
