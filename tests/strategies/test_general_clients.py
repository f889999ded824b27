"""The client halves of the general and personal rules, on the real tiny pipeline.

With plain SGD and one step, y = x - rate (g + term), where g is the gradient that `work.gradients` returns for the
same random stream. Every formula can therefore be repeated by hand.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaigc.device.training.local_round import SharedStageWork, local_round
from fedaigc.diffusion.adapters.stages import (
    Adapter,
    SharedState,
    Stage,
    activate,
    adapted_layers,
    install,
    install_personal,
    remove,
    weighted_layers,
    zero_residual,
)
from fedaigc.diffusion.encoding import EncodedImages
from fedaigc.diffusion.training import TimestepSampler, TrainingSettings, denoising_loss
from fedaigc.errors import UserError
from fedaigc.rng import rng
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, in_parts
from tests.strategies.conftest import MakeWork

RATE = 0.05


def gradient(
    work: SharedStageWork, at: SharedState, wanted: Callable[[str], bool], stream: str = "shared"
) -> Mapping[str, Tensor]:
    (found,) = work.gradients(at, wanted=wanted, batches=1, stream=stream)
    return found


def a_factor(name: str) -> bool:
    return name.endswith((".lora_A", ".lora_B"))


def random_like(tensors: Mapping[str, Tensor], seed: int, size: float = 0.01) -> dict[str, Tensor]:
    noise = rng(seed, "random")
    return {name: size * torch.randn(tensor.shape, generator=noise) for name, tensor in tensors.items()}


def close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():

        def message(default: str, name: str = name) -> str:
            return f"{name}: {default}"

        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=atol, msg=message)


def equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_fedprox_adds_half_mu_times_the_squared_distance(make_work: MakeWork, start: SharedState) -> None:
    """Its gradient is mu (w - w_global): zero in the first step. Without the square it has length mu / 2."""
    mu, steps = 3.0, 3
    received = Received(start, 1)
    found = load_strategy("fedprox", {"proximal_mu": mu}).client(make_work(steps), received, {}).upload
    first = start.tensors()
    expected = make_work(steps).train(
        start,
        trained=a_factor,
        gradient_term=lambda w: {name: mu * (value.detach() - first[name]) for name, value in w.items()},
    )
    close(found, expected.tensors())
    unsquared = make_work(steps).train(
        start,
        trained=a_factor,
        loss_term=lambda w: mu / 2 * sum(((w[n] - first[n]).norm() + 1e-12 for n in w), torch.zeros(())),
    )
    plain = make_work(steps).train(start, trained=a_factor)
    for other in (unsquared, plain):
        assert max(float((found[n] - t).abs().max()) for n, t in other.tensors().items()) > 1e-5


def test_scaffold_corrects_each_gradient_and_keeps_its_mean(make_work: MakeWork, start: SharedState) -> None:
    rule = load_strategy("scaffold")
    x = start.tensors()
    c, c_k = random_like(x, 1), random_like(x, 2)
    received = Received(start, 2, {f"control/{name}": value for name, value in c.items()})
    memory = {f"control/{name}": value for name, value in c_k.items()}
    g = gradient(make_work(round=2), start, a_factor)
    result = rule.client(make_work(1, round=2), received, memory)
    assert {name: tuple(value.shape) for name, value in result.upload.items()} == rule.expected(received, 2)
    assert list(result.upload) == list(rule.expected(received, 2))
    close({n: result.upload[n] for n in x}, {n: x[n] - RATE * (g[n] - c_k[n] + c[n]) for n in x})
    close(result.memory, {f"control/{n}": g[n] for n in x})
    close({n: result.upload[f"control/{n}"] for n in x}, {n: g[n] - c_k[n] for n in x})


def test_scaffold_s_mean_gradient_is_option_two_under_plain_sgd(
    make_work: MakeWork, start: SharedState
) -> None:
    """c_k' = c_k - c + (x - y) / (K eta), after more than one step."""
    steps, x = 4, start.tensors()
    c, c_k = random_like(x, 1), random_like(x, 2)
    received = Received(start, 2, {f"control/{name}": value for name, value in c.items()})
    memory = {f"control/{name}": value for name, value in c_k.items()}
    result = load_strategy("scaffold").client(make_work(steps, round=2), received, memory)
    option_two = {f"control/{n}": c_k[n] - c[n] + (x[n] - result.upload[n]) / (steps * RATE) for n in x}
    close(result.memory, option_two, atol=2e-5)


def test_scaffold_s_first_round_is_fedit_s(make_work: MakeWork, start: SharedState) -> None:
    rule = load_strategy("scaffold")
    found = rule.client(make_work(2), rule.download(start, 0, 2, 1), {}).upload
    expected = load_strategy("fedit").client(make_work(2), Received(start, 1), {}).upload
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_ditto_trains_a_second_model_near_the_received_one(make_work: MakeWork, start: SharedState) -> None:
    mu = 0.5
    rule = load_strategy("ditto", {"mu": mu})
    received, w = Received(start, 3), start.tensors()
    v = {
        name: value + change
        for (name, value), change in zip(w.items(), random_like(w, 4).values(), strict=True)
    }
    result = rule.client(make_work(round=3), received, v)
    fedit = load_strategy("fedit").client(make_work(round=3), received, {})
    assert equal(result.upload, fedit.upload)
    g = gradient(make_work(round=3), start.with_tensors(v), a_factor, "personal-shared")
    close(result.memory, {n: v[n] - RATE * (g[n] + mu * (v[n] - w[n])) for n in v})
    assert equal(rule.own(received, result.memory).tensors(), result.memory)
    assert rule.own(received, {}) is not None
    first = rule.client(make_work(), Received(start, 1), {})
    g = gradient(make_work(), start, a_factor, "personal-shared")
    close(first.memory, {n: w[n] - RATE * g[n] for n in w})


def test_ditto_stays_nearer_with_a_larger_mu(make_work: MakeWork, start: SharedState) -> None:
    def away(mu: float) -> float:
        found = load_strategy("ditto", {"mu": mu, "personal_steps": 6}).client(
            make_work(2), Received(start, 1), {}
        )
        return sum(float((found.memory[n] - x).norm()) ** 2 for n, x in start.tensors().items())

    assert away(0.0) > away(5.0) > away(15.0)


def test_fedala_learns_the_mix_and_trains_from_it(make_work: MakeWork, start: SharedState) -> None:
    rule = load_strategy("fedala", {"rate": 40.0, "first_steps": 1, "layers": "up_blocks"})
    x, round = start.tensors(), 2
    local = {
        name: value + change
        for (name, value), change in zip(x.items(), random_like(x, 5).values(), strict=True)
    }
    memory = {f"local/{name}": value for name, value in local.items()}
    result = rule.client(make_work(round=round), Received(start, round), memory)
    mixed = [name for name in x if in_parts(name, "up_blocks")]
    g = gradient(make_work(round=round), start, lambda name: name in mixed, "mix-0")  # W = 1: at x
    W = {n: (1 - 40.0 * (x[n] - local[n]) * g[n]).clamp(0, 1) for n in mixed}
    close({n.removeprefix("mix/"): t for n, t in result.memory.items() if n.startswith("mix/")}, W)
    assert any(0 < float(w.min()) < 1 or float(w.min()) == 0 for w in W.values())
    begin = start.with_tensors({n: local[n] + W[n] * (x[n] - local[n]) for n in mixed})
    g = gradient(make_work(round=round), begin, a_factor)
    expected = {n: t - RATE * g[n] for n, t in begin.tensors().items()}
    close(result.upload, expected)
    assert equal({n: result.memory[f"local/{n}"] for n in x}, result.upload)
    assert equal(rule.own(Received(start, 3), result.memory).tensors(), result.upload)
    # once W is there, `steps` more of it
    again = rule.client(make_work(round=3), Received(start, 3), result.memory)
    assert again.memory.keys() == result.memory.keys()


def test_fedala_s_first_round_is_fedit_s(make_work: MakeWork, start: SharedState) -> None:
    result = load_strategy("fedala").client(make_work(2), Received(start, 1), {})
    assert equal(result.upload, load_strategy("fedit").client(make_work(2), Received(start, 1), {}).upload)


def test_fedala_refuses_layers_that_are_not_there(start: SharedState) -> None:
    with pytest.raises(UserError, match="'up_block' fits none; they lie in down_blocks, up_blocks"):
        load_strategy("fedala", {"layers": "up_block"}).initial(start)


def test_fedrep_trains_the_personal_layers_first(make_work: MakeWork, start: SharedState) -> None:
    rule = load_strategy("fedrep")
    shared = rule.initial(start)
    assert shared.lora
    assert not any("up_blocks" in layer for layer in shared.lora)
    received, round = Received(shared, 2), 2
    heads = {name: value for name, value in start.tensors().items() if "up_blocks" in name}
    result = rule.client(make_work(2, round=round), received, heads)
    g = gradient(make_work(round=round), start, lambda name: name in heads, "personal-layers")
    expected = {name: value - RATE * g[name] for name, value in heads.items()}
    close(result.memory, expected)
    whole = start.with_tensors(expected)
    g = gradient(make_work(round=round), whole, lambda name: a_factor(name) and name not in heads)
    close(result.upload, {name: value - RATE * g[name] for name, value in shared.tensors().items()})
    assert {n: tuple(t.shape) for n, t in result.upload.items()} == rule.expected(received, 2)
    own = rule.own(received, result.memory)
    assert equal({n: own.tensors()[n] for n in heads}, result.memory)
    assert rule.own(received, {}).tensors().keys() == shared.tensors().keys()


def test_fedrep_s_first_round_makes_fresh_personal_factors(make_work: MakeWork, start: SharedState) -> None:
    rule = load_strategy("fedrep")
    result = rule.client(make_work(2), Received(rule.initial(start), 1), {})
    assert {name for name in start.tensors() if "up_blocks" in name} == set(result.memory)
    assert all(float(tensor.abs().max()) > 0 for tensor in result.memory.values())


def test_fedrep_without_personal_layers_is_fedit(make_work: MakeWork, start: SharedState) -> None:
    rule = load_strategy("fedrep", {"personal": ""})
    shared = rule.initial(start)
    result = rule.client(make_work(3), Received(shared, 1), {})
    assert equal(result.upload, load_strategy("fedit").client(make_work(3), Received(start, 1), {}).upload)
    assert not result.memory


@pytest.mark.parametrize(
    ("personal", "reason"), [("up", "no layer"), ("up_blocks down_blocks mid_block", "every")]
)
def test_fedrep_refuses_parts_that_divide_nothing(start: SharedState, personal: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        load_strategy("fedrep", {"personal": personal}).initial(start)


def test_where_the_personal_stage_alone_stays_fedper_fedrep_and_fedbabu_are_fedit(
    pipe: Any, data: EncodedImages, start: SharedState
) -> None:
    """What is shared ends bit for bit the same, whatever happens to the personal stage, and when.

    FedBABU freezes the head, FedRep trains it first, and FedPer and FedIT train it too. The head is the personal-stage
    adapter, on which the shared stage's loss does not depend.
    """
    settings = TrainingSettings(batch_size=2, personal_steps=0)
    received, rule = Received(start, 1), load_strategy("fedit")

    def one_round(personal: Adapter | None, personal_steps: int) -> Any:
        changed = replace(settings, personal_steps=personal_steps)
        return local_round(pipe, received, personal, {}, rule, data, changed, seed=3, local_steps=2, rank=2)

    remove(pipe, Stage.PERSONAL)
    fedbabu, _, _ = one_round(None, 0)
    fedper, head, _ = one_round(None, 3)
    assert head is not None
    fedrep, _, _ = one_round(head, 0)  # trained before
    assert equal(fedbabu.upload, fedper.upload)
    assert equal(fedbabu.upload, fedrep.upload)
    # the head gets no gradient from the shared stage's loss
    install(pipe, start)
    install_personal(pipe, head)
    live = dict(pipe.unet.named_parameters())
    activate(pipe, Stage.SHARED)
    sampler = TimestepSampler(pipe, Stage.SHARED, start.boundary_log_snr)
    for parameter in live.values():
        parameter.requires_grad_(True)
    denoising_loss(pipe, sampler, data, torch.arange(2), rng(0, "x"), settings).backward()
    heads = {name: p for name, p in live.items() if ".personal." in name}
    bodies = {name: p for name, p in live.items() if ".shared." in name}
    assert heads
    assert all(parameter.grad is None for parameter in heads.values())
    assert all(parameter.grad is not None for parameter in bodies.values())
    for parameter in live.values():
        parameter.grad = None
        parameter.requires_grad_(False)
    remove(pipe, Stage.PERSONAL)


def test_local_only_goes_on_from_its_own_factors(make_work: MakeWork, start: SharedState) -> None:
    rule = load_strategy("local_only")
    received = rule.download(start, 0, 2, 1)
    first = rule.client(make_work(), received, {})
    assert first.upload == {}
    assert rule.expected(received, 2) == {}
    g = gradient(make_work(), start, a_factor)
    close(first.memory, {n: x - RATE * g[n] for n, x in start.tensors().items()})
    second = rule.client(make_work(round=2), rule.download(start, 0, 2, 2), first.memory)
    g = gradient(make_work(round=2), start.with_tensors(first.memory), a_factor)
    close(second.memory, {n: x - RATE * g[n] for n, x in first.memory.items()})
    assert equal(rule.own(received, second.memory).tensors(), second.memory)
    smaller = rule.download(start, 0, 1, 1)
    assert smaller.shared.adapter.scale == start.adapter.scale
    trained = rule.client(make_work(), smaller, {}).memory
    assert all(min(tensor.shape[:2]) == 1 for tensor in trained.values())


def test_full_weights_trains_the_residual_of_every_layer_and_leaves_w0(
    make_work: MakeWork, start: SharedState, pipe: Any
) -> None:
    rule = load_strategy("full_weights")
    shared = rule.initial(replace(start, residual=zero_residual(pipe)))
    assert not shared.lora
    assert set(shared.residual) == set(weighted_layers(pipe)) > set(adapted_layers(pipe))
    derived: dict[str, Any] = dict(rule.initial(start).residual)
    whole: dict[str, Any] = dict(shared.residual)
    assert {n: r.shape for n, r in derived.items()} == {n: whole[n].shape for n in start.lora}
    received = Received(shared, 1)
    remove(pipe, Stage.SHARED)
    layers: dict[str, Any] = weighted_layers(pipe)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    g = gradient(make_work(), shared, lambda name: True)
    found = rule.client(make_work(), received, {}).upload
    assert {n: tuple(t.shape) for n, t in found.items()} == rule.expected(received, 2)
    close(found, {n: -RATE * g[n] for n in found})
    remove(pipe, Stage.SHARED)
    after: dict[str, Any] = weighted_layers(pipe)
    assert equal({name: layer.weight for name, layer in after.items()}, before)
