"""The shared state before the first round: fresh factors, or an existing LoRA."""

from typing import Any

from fedaigc.diffusion.adapters.layers import names_of, selected_layers
from fedaigc.diffusion.adapters.lora_folder import import_lora, lora_digest
from fedaigc.diffusion.adapters.stages import Adapter, SharedState, new_adapter, zero_residual
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import AdapterSection, FederationConfig, parse_config
from fedaigc.federation.preloaded import base_model
from fedaigc.rng import rng
from fedaigc.strategy.rule import Rule


def prepared(config: FederationConfig) -> FederationConfig:
    """Return the configuration with everything that follows from the LoRA it starts from, and from its layers.

    Rank, alpha and layers are then those of the LoRA, and layers that an expression selects are listed by name.
    Server and devices receive the same values, and no device needs the file.

    Raises:
        UserError: If the LoRA does not fit the model, has another digest than configured, or another rank or
            alpha than configured; or if a target module fits no layer.
    """
    section = config.adapter
    if section.start_from is None and section.target_modules is None:
        return config
    pipe, _ = base_model(config.model)
    changes: dict[str, Any] = {}
    if section.target_modules is not None:
        changes["target_modules"] = names_of(pipe, section.target_modules)
    if section.start_from is not None:
        digest, lora = lora_digest(section.start_from), _start(config)
        if section.start_digest not in (None, digest):
            raise UserError(
                f"{section.start_from} has digest {digest}, the run started from {section.start_digest}: give "
                "the LoRA of that run, or choose a new output folder without adapter.start_digest"
            )
        _check_rank(section, lora)
        changes |= {"start_digest": digest, "rank": lora.rank, "alpha": lora.alpha}
        if section.target_modules is None and lora.lora.keys() != selected_layers(pipe).keys():
            changes["target_modules"] = tuple(lora.lora)
    values = config.model_dump()
    return parse_config({**values, "adapter": {**values["adapter"], **changes}})


def initial_state(config: FederationConfig, rule: Rule) -> SharedState:
    """Return the shared state that a strategy's first round starts from.

    Raises:
        UserError: As `initial_shared_state`, or if the strategy does not keep the factors of a LoRA.
    """
    start = initial_shared_state(config, full_weights=rule.traits.full_weights)
    shared = rule.initial(start)
    if config.adapter.start_from is not None:
        before, after = start.adapter.tensors(), shared.adapter.tensors()
        if before.keys() != after.keys() or not all(after[name].equal(before[name]) for name in before):
            raise UserError(
                f"strategy {config.rounds.strategy!r} begins with factors of its own, so it cannot start from "
                "a LoRA: choose another strategy, or leave out adapter.start_from"
            )
    return shared


def initial_shared_state(config: FederationConfig, *, full_weights: bool = False) -> SharedState:
    """Return the initial shared state, which has the function of the base model, or of it with the LoRA.

    A is drawn from the run's seed and B is zero, unless they come from the LoRA. The residual is empty, or zero
    with `full_weights`.

    Raises:
        UserError: If the LoRA does not fit the model, or a target module fits no layer.
    """
    pipe, base_hash = base_model(config.model)
    section = config.adapter
    factors = new_adapter(
        pipe,
        generator=rng(config.seed, "shared adapter"),
        rank=section.rank,
        alpha=section.alpha,
        target_modules=section.target_modules,
    )
    if section.start_from is not None:
        lora = _start(config)
        _check_rank(section, lora)
        outside = sorted(lora.lora.keys() - factors.lora.keys())
        if outside:
            raise UserError(
                f"{section.start_from} changes layer {outside[0]!r}, which adapter.target_modules does not "
                "select: add it, or leave target_modules out to train the layers of the LoRA"
            )
        factors = Adapter({**factors.lora, **lora.lora}, lora.rank, lora.alpha)
    boundary = None
    if section.boundary_timestep is not None:
        boundary = boundary_log_snr(pipe, section.boundary_timestep)
    residual = zero_residual(pipe) if full_weights else {}
    return SharedState(
        base_hash, factors.lora, factors.rank, factors.alpha, residual, boundary_log_snr=boundary
    )


def _start(config: FederationConfig) -> Adapter:
    assert config.adapter.start_from is not None
    pipe, base_hash = base_model(config.model)
    return import_lora(pipe, config.adapter.start_from, base_hash=base_hash)


def _check_rank(section: AdapterSection, lora: Adapter) -> None:
    given = {"rank": section.rank if "rank" in section.model_fields_set else None, "alpha": section.alpha}
    for name, value in given.items():
        own = getattr(lora, name)
        if value is not None and value != own:
            raise UserError(
                f"{section.start_from} has {name} {own:g}, adapter.{name} is {value:g}: leave adapter.{name} "
                "out, or give the LoRA's"
            )
