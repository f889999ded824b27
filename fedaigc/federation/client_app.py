"""The Flower client: a thin shell that opens the device of its partition and passes messages on.

It holds no prompt and no image, and lets no text of an error through: the kind of failure alone crosses.
"""

import traceback
from collections.abc import Callable

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedaigc.device.device import Device
from fedaigc.device.home import note_error
from fedaigc.device.report import DeviceError, Failure, failure_of
from fedaigc.device.scoring import Scorer
from fedaigc.federation import messages
from fedaigc.federation.base import base_model, scene_scorer, taxonomy
from fedaigc.federation.config import FederationConfig, config_from_run
from fedaigc.federation.messages import Ask, body
from fedaigc.federation.rule import Update
from fedaigc.federation.software import own_software
from fedaigc.federation.strategies import load_strategy
from fedaigc.rng import numpy_rng

Handler = Callable[[RecordDict, int, FederationConfig], RecordDict]

app = ClientApp()


def answers(kind: Ask) -> Callable[[Handler], Handler]:
    """Register a handler for one kind of message; its errors become `Failure`s, and stay readable at home."""

    def register(handler: Handler) -> Handler:
        def answer(message: Message, context: Context) -> Message:
            try:
                reply = _guarded(handler, message.content, context)
            except Exception as error:  # whatever it is, its text may hold a prompt
                reply = messages.failure(failure_of(error))
            return Message(reply, reply_to=message)

        category, _, action = kind.value.partition(".")
        decorator = app.query(action) if category == "query" else app.train()
        decorator(answer)
        return handler

    return register


@answers(Ask.HELLO)
def hello(content: RecordDict, partition: int, config: FederationConfig) -> RecordDict:
    """Which partition this is, the fingerprint of its base model, and the versions of what computes here."""
    _, base_hash = base_model(config.model)
    return body(partition=partition, base=base_hash, **own_software())


@answers(Ask.TRAIN)
def train(content: RecordDict, partition: int, config: FederationConfig) -> RecordDict:
    """One round of local training from what is in the message."""
    received = messages.read_train(content)
    luck = numpy_rng(config.seed, "dropout", received.round, partition).random()
    if luck < config.rounds.dropout_rate:
        raise DeviceError(Failure.DROPPED_OUT, "drawn to fail in this round")
    update = open_device(partition, config).train(
        config.name,
        received,
        load_strategy(config.rounds.strategy, config.rounds.options),
        config.training,
        shared_steps=config.shared_steps(partition),
        personal_rank=config.adapter.rank,
        height=config.model.height,
        width=config.model.width,
    )
    if not all(bool(tensor.isfinite().all()) for tensor in update.tensors.values()):
        raise DeviceError(Failure.DIVERGED, "training ended with values that are not finite")
    rank = received.shared.rank if update.rank is None else update.rank
    return messages.update_record(
        Update(partition, update.num_examples, update.num_steps, update.tensors, rank, update.losses),
        received,
        config.rounds.upload_format,
        numpy_rng(config.seed, "upload", received.round, partition),
    )


@answers(Ask.INSTALL)
def install(content: RecordDict, partition: int, config: FederationConfig) -> RecordDict:
    """Keep a shared state for later generations, and say its version."""
    return body(version=open_device(partition, config).receive(messages.read_shared_state(content)))


@answers(Ask.SIGNATURES)
def signatures(content: RecordDict, partition: int, config: FederationConfig) -> RecordDict:
    """What may be said of every waiting task."""
    device = open_device(partition, config)
    settings = config.generation
    disclosed = {
        task_id: device.signature(task_id, settings.policy, min_public_prompts=settings.min_public_prompts)
        for task_id in device.waiting()
    }
    return messages.signatures_record(disclosed)


@answers(Ask.SHARE)
def share(content: RecordDict, partition: int, config: FederationConfig) -> RecordDict:
    """Run the shared steps of a group."""
    order = messages.read_share(content, partition)
    steps = open_device(partition, config).share(
        order.task_id,
        order.group_prompt,
        order.plan,
        order.stop,
        noise_seed=order.noise_seed,
        handoff=config.generation.handoff,
        number_format=link.number_format if (link := config.generation.link) is not None else None,
    )
    return messages.shared_steps_record(steps)


@answers(Ask.FINISH)
def finish(content: RecordDict, partition: int, config: FederationConfig) -> RecordDict:
    """Finish a task from its packet, or alone."""
    order = messages.read_finish(content, partition)
    settings = config.generation
    scorer = scene_scorer() if settings.scorer == "scenes" else None
    device = open_device(partition, config, scorer)
    if order.packet is None:
        report = device.alone(order.task_id, order.noise_seed, order.plan, strip_steps=settings.strip_steps)
    else:
        report = device.finish(
            order.task_id,
            order.packet,
            order.plan,
            delivery=settings.delivery,
            mend=settings.link.repair if settings.link is not None else "nothing",
            strip_steps=settings.strip_steps,
        )
    return messages.report_record(report)


def open_device(partition: int, config: FederationConfig, scorer: Scorer | None = None) -> Device:
    """The device whose home belongs to this partition. Raises DeviceError when there is no such home."""
    home = config.home(partition)
    if not home.is_dir():
        raise DeviceError(Failure.STORAGE, f"no home {home}")
    pipe, base_hash = base_model(config.model)
    return Device(home, pipe, base_hash=base_hash, taxonomy=taxonomy(), scorer=scorer)


def _guarded(handler: Handler, content: RecordDict, context: Context) -> RecordDict:
    config = config_from_run(context.run_config)
    partition = int(context.node_config["partition-id"])
    # results repeat at equal threads only, and processes of one thread share the cores best
    torch.set_num_threads(config.threads)
    try:
        return handler(content, partition, config)
    except Exception:
        note_error(config.home(partition), traceback.format_exc())
        raise
