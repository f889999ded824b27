"""Which weights of a server a device uses for its prompts and pictures."""

import math
from dataclasses import replace

import pytest
import torch

from fedaigc.device.acceptance import check_form, check_limits, picture_change, weight_changes
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.diffusion.adapters.stages import SharedState, base_weight, weighted_layers, zero_residual
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.server.server_app import initial_shared_state
from tests.small_run import MakeRun


@pytest.fixture
def config(make_run: MakeRun) -> FederationConfig:
    return make_run(num_clients=1)


@pytest.fixture
def shared(config: FederationConfig) -> SharedState:
    return initial_shared_state(config)


def scaled(shared: SharedState, pipe: object, ratio: float) -> SharedState:
    """A state that changes its first layer by `ratio` of the norm of its weights, along one direction."""
    layer = next(iter(shared.lora))
    down, up = shared.lora[layer]
    weight = base_weight(weighted_layers(pipe)[layer])  # type: ignore[arg-type]
    one = torch.zeros_like(up)
    one[0, 0] = 1.0
    # B A has one row, that of A; s = 1
    factor = ratio * float(weight.norm()) / float(down[0].norm())
    return replace(shared, lora={**shared.lora, layer: (down, factor * one)})


def check(state: SharedState, config: FederationConfig, limits: OwnerLimits, residual: bool) -> None:
    pipe, base_hash = base_model(config.model)
    check_form(pipe, state, residual=residual)
    check_limits(pipe, state, base_hash, limits)


def refused(
    state: SharedState, config: FederationConfig, limits: OwnerLimits, *, residual: bool = False
) -> str:
    with pytest.raises(DeviceError) as caught:
        check(state, config, limits, residual)
    assert caught.value.failure is Failure.STATE_REFUSED
    return str(caught.value)


def test_a_fresh_state_is_accepted_and_changes_nothing(config: FederationConfig, shared: SharedState) -> None:
    pipe, base_hash = base_model(config.model)
    check_form(pipe, shared, residual=False)
    check_limits(pipe, shared, base_hash, OwnerLimits())
    assert set(weight_changes(pipe, shared).values()) == {0.0}
    assert picture_change(pipe, shared, base_hash) == 0.0


@pytest.mark.parametrize("ratio", [0.25, 0.9, 1.1, 3.0])
def test_the_change_of_a_layer_is_measured_as_derived(
    config: FederationConfig, shared: SharedState, ratio: float
) -> None:
    pipe, base_hash = base_model(config.model)
    state = scaled(shared, pipe, ratio)
    assert max(weight_changes(pipe, state).values()) == pytest.approx(ratio, rel=1e-5)
    limits = OwnerLimits(max_picture_change=math.inf)
    if ratio < 1:
        check_limits(pipe, state, base_hash, limits)
    else:
        assert "of its weights' norm" in refused(state, config, limits)


def test_a_state_that_draws_another_picture_is_refused(config: FederationConfig, shared: SharedState) -> None:
    """A change within the bound of each layer, but in all layers at once."""
    pipe, base_hash = base_model(config.model)
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for layer, (down, up) in shared.lora.items():
        weight = base_weight(weighted_layers(pipe)[layer])
        random = torch.randn(up.shape, generator=generator)
        norm = float((random.flatten(1) @ down.flatten(1)).norm())
        lora[layer] = down, random * (0.95 * float(weight.norm()) / norm)
    state = replace(shared, lora=lora)
    assert max(weight_changes(pipe, state).values()) < 1
    change = picture_change(pipe, state, base_hash)
    assert change > 0
    limits = OwnerLimits(max_picture_change=change / 2)
    assert "public picture" in refused(state, config, limits)
    check_limits(pipe, state, base_hash, OwnerLimits(max_picture_change=2 * change))


def test_the_owner_keeps_the_boundary(config: FederationConfig, shared: SharedState) -> None:
    for moved in (None, 0.0, -5.0):
        state = replace(shared, boundary_log_snr=moved)
        assert "the owner's is" in refused(state, config, OwnerLimits())
    pipe, base_hash = base_model(config.model)
    check_limits(pipe, replace(shared, boundary_log_snr=None), base_hash, OwnerLimits(boundary_timestep=None))


def test_what_is_no_state_of_this_model_is_refused(config: FederationConfig, shared: SharedState) -> None:
    pipe, _ = base_model(config.model)
    layer, (down, up) = next(iter(shared.lora.items()))
    limits = OwnerLimits()
    zeros = zero_residual(pipe)
    wrong = {
        "takes no factors here": replace(shared, lora={"nowhere.to_q": (down, up)}),
        "on a weight": replace(shared, lora={**shared.lora, layer: (down, up[:-1])}),
        "values beyond": replace(shared, lora={**shared.lora, layer: (1e38 * down, 1e-38 * (up + 1))}),
        "not finite": replace(shared, lora={**shared.lora, layer: (down, up + math.inf)}),
        "does not declare": replace(shared, residual=zeros),
    }
    for said, state in wrong.items():
        assert said in refused(state, config, limits)
    assert "does not have" in refused(replace(shared, residual={"x": up}), config, limits, residual=True)
    name, zero = next(iter(zeros.items()))
    state = replace(shared, residual={name: zero[None]})
    assert "residual" in refused(state, config, limits, residual=True)
    check_form(pipe, replace(shared, residual=zeros), residual=True)
    for alpha in (0.0, -1.0, math.nan, math.inf):
        assert "alpha" in refused(replace(shared, alpha=alpha), config, limits)


def test_factors_in_more_layers_are_bounded_by_the_owner_s_rank(config: FederationConfig) -> None:
    pipe, base_hash = base_model(config.model)
    every = list(weighted_layers(pipe))
    section = config.adapter.model_copy(update={"target_modules": tuple(every), "rank": 2})
    state = initial_shared_state(config.model_copy(update={"adapter": section}))
    check_form(pipe, state, residual=False)
    check_limits(pipe, state, base_hash, OwnerLimits(max_rank=8))
    assert "those of rank 2 in the default layers" in refused(state, config, OwnerLimits(max_rank=2))
