"""`fedaigc device start`: the agent of a device, and what its owner permits."""

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from fedaigc.cli.options import (
    DtypeOption,
    Insecure,
    MinCaptions,
    MinPublicPrompts,
    Model,
    NewHomeFolder,
    PolicyOption,
    Risk,
    Threads,
    Tolerance,
    TorchDevice,
    Variant,
    number,
)
from fedaigc.errors import UserError
from fedaigc.semantics.policy import Policy


def start(
    home: NewHomeFolder,
    client: Annotated[int, typer.Option(min=0, help="Client number of the device.")] = 0,
    server: Annotated[
        str, typer.Option(help="Server, as host:port. Without it, only the socket is served.")
    ] = "",
    authority: Annotated[Path | None, typer.Option(help="The server's authority.pem.")] = None,
    insecure: Insecure = False,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores", help="Send the judge's coarse scores, which a server could use for a search."
        ),
    ] = False,
    model: Model = "embedded",
    device: TorchDevice = "cpu",
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    policy: PolicyOption = Policy.KIND,
    min_public_prompts: MinPublicPrompts = 3,
    atlas: Annotated[
        Path | None,
        typer.Option(
            help="Public atlas, for servers that ask for its nodes. Default: the one that ships with the model."
        ),
    ] = None,
    atlas_hash: Annotated[
        str | None,
        typer.Option(
            help="Hash of the atlas, or 16 digits or more of it: an altered file of the same name is refused."
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File of `calibrate`: the device shares only within --tolerance.")
    ] = None,
    min_captions: MinCaptions = 8,
    tolerance: Tolerance = 0.5,
    risk: Risk = 0.2,
    threads: Threads = 1,
    boundary_timestep: Annotated[
        int,
        typer.Option(min=0, help="t* as a training timestep, which no server can change. 0: no t*."),
    ] = 500,
    max_steps: Annotated[
        int, typer.Option(min=1, help="Most denoising steps that a server may request.")
    ] = 150,
    max_side: Annotated[
        int, typer.Option(min=8, help="Largest image side that a server may request, in pixels.")
    ] = 1024,
    max_guidance: Annotated[
        float, typer.Option(callback=number, min=0, help="Largest guidance scale that a server may request.")
    ] = 30.0,
    negative_prompt: Annotated[
        bool,
        typer.Option(
            "--negative-prompt", help="Permit a server to give a negative prompt, a text of its own."
        ),
    ] = False,
    max_weight_change: Annotated[
        float,
        typer.Option(
            callback=number,
            min=0,
            help="Largest change of a layer by a shared state, relative to its weights.",
        ),
    ] = 1.0,
    max_picture_change: Annotated[
        float,
        typer.Option(
            callback=number,
            min=0,
            help="Largest change of a public picture by a shared state, in standard deviations.",
        ),
    ] = 1.0,
    max_local_steps: Annotated[
        int,
        typer.Option(min=1, help="Most training steps of the shared stage in one order of a server."),
    ] = 40,
    max_personal_steps: Annotated[
        int, typer.Option(min=0, help="Most training steps of the personal stage in one order of a server.")
    ] = 200,
    max_batch_size: Annotated[int, typer.Option(min=1, help="Most pictures per training step.")] = 32,
    max_rank: Annotated[int, typer.Option(min=1, help="Largest rank of the trained adapters.")] = 16,
    max_learning_rate: Annotated[
        float, typer.Option(callback=number, min=0, help="Largest learning rate of training.")
    ] = 3e-3,
    max_condition_dropout: Annotated[
        float,
        typer.Option(callback=number, min=0, max=1, help="Largest share of captions that training may drop."),
    ] = 0.1,
    full_weights: Annotated[
        bool,
        typer.Option("--full-weights", help="Permit the training of full weights, and not of adapters only."),
    ] = False,
    validation_loss: Annotated[
        bool,
        typer.Option(
            "--validation-loss",
            help="Permit a server to have pictures kept out of training, and to be told the loss on them.",
        ),
    ] = False,
    max_rounds_a_day: Annotated[
        int, typer.Option(min=0, help="Most training rounds within 24 hours, over all runs.")
    ] = 200,
    max_rounds: Annotated[
        int, typer.Option(min=0, help="Most training rounds in total, counted in the home.")
    ] = 1000,
    max_passes: Annotated[
        float,
        typer.Option(
            callback=number, min=0, help="Most passes over the private pictures in total, on average."
        ),
    ] = 54.0,
    max_update_norm: Annotated[
        float,
        typer.Option(
            callback=number, min=0, help="L2 norm to which updates are clipped before they are sent."
        ),
    ] = 12.0,
    max_bits_a_day: Annotated[
        float,
        typer.Option(
            callback=number, min=0, help="Bits that prompts may disclose within 24 hours. inf: any."
        ),
    ] = 256.0,
    max_epsilon_a_day: Annotated[
        float,
        typer.Option(
            callback=number, min=0, help="Epsilon within 24 hours; then only nodes with noise are disclosed."
        ),
    ] = math.inf,
    max_node_epsilon: Annotated[
        float,
        typer.Option(
            callback=number, min=0.01, help="Largest epsilon of a node of an atlas: at least this noise."
        ),
    ] = math.inf,
    sums: Annotated[
        bool,
        typer.Option(
            "--sums",
            help="Permit a prompt's text embeddings to be summed, masked, with those of two other devices or more.",
        ),
    ] = False,
    equal_prompts: Annotated[
        bool,
        typer.Option(
            "--equal-prompts",
            help="Let the server learn which prompts of other devices equal the own one, and share nearly all steps "
            "with these.",
        ),
    ] = False,
    trusted_keys: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Sum with these devices alone: their keys/device.key.pub, one a line. Without it the server names the "
            "others, and one that makes them up learns the prompt.",
        ),
    ] = None,
    reply_floor: Annotated[
        float,
        typer.Option(
            callback=number,
            min=0.01,
            help="Fewest seconds until a reply about a prompt, so that its time reveals nothing.",
        ),
    ] = 1.0,
    page: Annotated[bool, typer.Option(help="Serve the owner's page, on 127.0.0.1 only.")] = True,
    page_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page. 0: any free port.")] = 0,
    strip: Annotated[
        int,
        typer.Option(min=0, help="Intermediate pictures of each image on the page. Each must be decoded."),
    ] = 4,
) -> None:
    """Run the device's agent until it is stopped. Only the agent opens the home, with a warm model."""
    from fedaigc.deployment.agent.agent import AgentSettings
    from fedaigc.deployment.agent.node_signing import read_trusted_keys
    from fedaigc.deployment.agent.resident import run_device
    from fedaigc.device.limits import OwnerLimits
    from fedaigc.federation.config.run_config import ModelSection
    from fedaigc.validation import validated

    if policy is Policy.OPEN:
        typer.echo(
            "warning: under this policy, the server receives the prompts, and members of a group can infer them",
            err=True,
        )
    limits = OwnerLimits(
        max_denoising_steps=max_steps,
        max_image_side=max_side,
        max_guidance_scale=max_guidance,
        negative_prompt=negative_prompt,
        boundary_timestep=boundary_timestep or None,
        max_weight_change=max_weight_change,
        max_picture_change=max_picture_change,
        max_local_steps=max_local_steps,
        max_personal_steps=max_personal_steps,
        max_batch_size=max_batch_size,
        max_rank=max_rank,
        max_learning_rate=max_learning_rate,
        max_condition_dropout=max_condition_dropout,
        full_weights=full_weights,
        validation_loss=validation_loss,
        max_rounds_a_day=max_rounds_a_day,
        max_rounds=max_rounds,
        max_passes=max_passes,
        max_update_norm=max_update_norm,
        max_bits_a_day=max_bits_a_day,
        max_epsilon_a_day=max_epsilon_a_day,
        max_node_epsilon=max_node_epsilon,
        sums=sums,
        equal_prompts=equal_prompts,
    )
    settings = AgentSettings(
        client=client,
        model=validated(
            ModelSection, {"name": model, "device": device, "dtype": dtype, "variant": variant}, "the model"
        ),
        policy=policy,
        min_public_prompts=min_public_prompts,
        scores=scores,
        threads=threads,
        strip_pictures=strip if page else 0,
        limits=limits,
        reply_floor_s=reply_floor,
        atlas=atlas,
        atlas_hash=_checked_hash(atlas_hash),
        calibration=calibration,
        min_captions=min_captions,
        tolerance=tolerance,
        risk=risk,
        trusted_keys=read_trusted_keys(trusted_keys) if trusted_keys is not None else None,
    )
    run_device(
        home,
        settings,
        server=server,
        authority=authority,
        insecure=insecure,
        page_port=page_port if page else None,
        say=typer.echo,
    )


def _checked_hash(given: str | None) -> str | None:
    if given is not None and not re.fullmatch("[0-9a-f]{16,64}", given):
        raise UserError(
            f"--atlas-hash {given[:80]!r}: expected 16 to 64 hexadecimal digits, as `fedaigc atlas show` prints them"
        )
    return given
