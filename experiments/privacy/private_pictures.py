"""Extract private pictures from updates: a server lets a device memorise its pictures; prints JSON.

    python -m experiments.privacy.private_pictures --output experiments/records/privacy/private_pictures.json

The server is hostile and sends training orders to the real agent of a home with few pictures of one art style. It
draws pictures with the returned weights, and the best of them is compared with each private picture, by PSNR. The
attacks:

    memoriser   one order of 350 steps at rank 64, without t* and without captions
    one order   the largest order that the owner's default limits allow
    large steps, many orders
                as many orders of three steps as the limits allow, each from the weights that the previous one
                returned, at the largest learning rate or for the most steps
    honest      three rounds of the default configuration, as far as the limits allow them

There are two attackers. One has no knowledge, and draws `--samples` pictures without a caption; chance is the best of
400 other pictures of that style. The other knows the private captions, and draws equally many pictures of each;
chance is the best of as many other pictures of that style with that caption (the mean over draws from 200). Gains
over chance have a 95 % bootstrap interval over pictures. `recovered` counts the private pictures to which a drawn one
is closer than chance by 3 dB.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import fedaigc
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from fedaigc.data.pictures.rows import read_rows
from fedaigc.data.scenes import Scene, draw_scenes, render
from fedaigc.data.sprites import HELD_OUT_STYLES, STYLES
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.diffusion.adapters.stages import SharedState, install
from fedaigc.diffusion.sampling.segment import finish_segment, initial_state
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig, parse_config
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire import messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.metrics.intervals import clustered_mean, proportion
from fedaigc.rng import derived_seed, numpy_rng
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.rule import Received

STRATEGY = "fedit"
OTHERS, OTHERS_WITH_CAPTION = 400, 200
RECOVERED_DB = 3.0


@dataclass(frozen=True)
class Attack:
    """Orders of a hostile server: at most `orders`, one after the other, of `steps` steps each."""

    name: str
    steps: int
    orders: int = 1
    rank: int = 16
    learning_rate: float = 3e-3
    condition_dropout: float = 0.1
    batch_size: int = 8
    boundary_timestep: int | None = 500

    def config(self) -> FederationConfig:
        """Return the configuration that the device receives."""
        return parse_config(
            {
                "homes": "homes",
                "output": "out",
                "name": self.name.replace(" ", "-"),
                "adapter": {"rank": self.rank, "boundary_timestep": self.boundary_timestep},
                "rounds": {"strategy": STRATEGY, "count": self.orders},
                "training": {
                    "local_steps": self.steps,
                    "personal_steps": 0,
                    "batch_size": self.batch_size,
                    "learning_rate": self.learning_rate,
                    "condition_dropout": self.condition_dropout,
                },
            }
        )


MEMORISER = Attack("memoriser", 350, 1, 64, 1e-3, 1.0, 8, None)
ATTACKS = (
    MEMORISER,
    # four pictures allow 27 steps at the default rate, 9 at three times the rate
    Attack("one order", 27, learning_rate=1e-3),
    Attack("large steps", 3, 1000),
    Attack("many orders", 3, 1000, learning_rate=1e-3),
    Attack("honest", 20, 3, rank=8, learning_rate=1e-3, condition_dropout=0.1),
)


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attack: orders that were answered, the failure that ended it, the last weights."""

    answered: int
    refused: str | None
    shared: SharedState


def carry_out(attack: Attack, agent: Agent) -> Outcome:
    """Send the orders, each from the returned weights, until one is refused."""
    config = attack.config()
    text = config.to_run_config()[RUN_CONFIG_KEY]
    shared = initial_shared_state(config)
    for number in range(1, attack.orders + 1):
        order = messages.train_record(
            Received(shared, number), "float32", numpy_rng(0, "order", number), strategy_code(STRATEGY)
        )
        reply = agent.answer(Ask.TRAIN, text, order)
        failure = messages.failure_in(reply)
        if failure is not None:
            return Outcome(number - 1, failure.value, shared)
        shared = shared.with_tensors(messages.read_tensors(reply))
    return Outcome(attack.orders, None, shared)


def pictures(shared: SharedState, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """Draw pictures with the weights in every step, without guidance."""
    pipe, base_hash = base_model(parse_config({"homes": "homes", "output": "out"}).model)
    plan = build_plan(
        pipe, num_inference_steps=11, guidance_scale=1.0, height=64, width=64, base_hash=base_hash
    )
    install(pipe, replace(shared, boundary_log_snr=None))
    state = initial_state(pipe, plan, seed, batch=len(prompts))
    return finish_segment(pipe, state, {"prompt": list(prompts)}, plan)


def psnr_db(drawn: Image.Image, private: Image.Image) -> float:
    """Return the PSNR 10 log10(1 / mse) on pixel values from 0 to 1."""
    x, y = (np.asarray(image.convert("RGB"), dtype=np.float64) / 255 for image in (drawn, private))
    return float(-10 * np.log10(max(((x - y) ** 2).mean(), 1e-10)))


def best(drawn: Sequence[Image.Image], private: Image.Image) -> tuple[float, Image.Image]:
    """Return the closest of the drawn pictures."""
    return max(((psnr_db(image, private), image) for image in drawn), key=lambda pair: pair[0])


def expected_best(values: Sequence[float], count: int) -> float:
    """Return the mean of the largest of `count` values drawn without replacement:

        sum_i x_(i) C(i - 1, count - 1) / C(n, count)

    for the sorted values x_(1) <= ... <= x_(n).
    """
    return sum(
        value * math.comb(at, count - 1) / math.comb(len(values), count)
        for at, value in enumerate(sorted(values))
    )


@dataclass(frozen=True)
class Target:
    """A home, its private pictures, and the chance levels of each in dB."""

    scenes: tuple[Scene, ...]
    private: tuple[Image.Image, ...]
    chance_without: tuple[float, ...]
    chance_with: tuple[float, ...]


def target(style: str, count: int, samples: int, seed: int) -> Target:
    """Create `count` private pictures of one style."""
    drawn = list(draw_scenes(count, derived_seed(seed, "private", style), styles=(style,)))
    others = [image for _, image in draw_scenes(OTHERS, derived_seed(seed, "others", style), styles=(style,))]
    without, with_caption = [], []
    for number, (scene, image) in enumerate(drawn):
        without.append(best(others, image)[0])
        alike = [
            psnr_db(render(scene, numpy_rng(seed, "alike", style, number, at)), image)
            for at in range(OTHERS_WITH_CAPTION)
        ]
        with_caption.append(expected_best(alike, samples // count))
    return Target(
        tuple(scene for scene, _ in drawn),
        tuple(image for _, image in drawn),
        tuple(without),
        tuple(with_caption),
    )


def open_agent(root: Path, target: Target, *, limited: bool = True) -> Agent:
    """Open an agent with default settings, whose home has the private pictures. `limited=False` removes all limits."""
    rows = [
        {"image": image, "caption": scene.caption}
        for scene, image in zip(target.scenes, target.private, strict=True)
    ]
    ImageStore(Home.open(root, 1)).add(read_rows(rows))
    agent = Agent(root, AgentSettings(0, parse_config({"homes": "homes", "output": "out"}).model))
    if not limited:
        agent.limits = None
    return agent


def compared(target: Target, shared: SharedState, samples: int, seed: int) -> dict[str, Any]:
    """Return PSNR and closest picture for each private picture, by attacker."""
    captions = [scene.caption for scene in target.scenes]
    drawn = pictures(shared, [""] * samples, seed)
    without = [best(drawn, image) for image in target.private]
    each = samples // len(captions)
    told = pictures(shared, [caption for caption in captions for _ in range(each)], seed + 1)
    with_caption = [best(told[at * each : (at + 1) * each], image) for at, image in enumerate(target.private)]
    return {"without captions": without, "with captions": with_caption}


def summary(psnr: Sequence[float], chance: Sequence[float], seed: int) -> dict[str, Any]:
    """Return gains over chance in dB, with intervals."""
    gains = [found - level for found, level in zip(psnr, chance, strict=True)]
    mean = clustered_mean(gains, range(len(gains)), seed=seed)
    return {
        "psnr_db": [round(value, 2) for value in psnr],
        "chance_db": [round(value, 2) for value in chance],
        "gain_db": {name: round(value, 3) for name, value in mean.as_dict().items()},
        "recovered": proportion([gain >= RECOVERED_DB for gain in gains]).as_dict(),
        "succeeds": mean.low > 0,
    }


def grid(rows: Sequence[Sequence[Image.Image]], path: Path) -> None:
    """Write private pictures in the first row and the closest drawn ones of each attack below, enlarged twice."""
    side, gap = 128, 4
    width, height = len(rows[0]) * (side + gap) - gap, len(rows) * (side + gap) - gap
    sheet = Image.new("RGB", (width, height), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(
                image.resize((side, side), Image.Resampling.NEAREST), (x * (side + gap), y * (side + gap))
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--attacks", nargs="+", default=[attack.name for attack in ATTACKS])
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(HELD_OUT_STYLES))
    parser.add_argument("--pictures", type=int, default=4, help="private pictures of a home")
    parser.add_argument("--samples", type=int, default=32, help="number of pictures that an attacker draws")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", default="", help="commit of the attacked code, for the record")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--grid", type=Path, help="write the closest pictures to this file, as PNG")
    options = parser.parse_args()
    one_thread()
    targets = {
        style: target(style, options.pictures, options.samples, options.seed) for style in options.styles
    }
    rows: dict[str, Any] = {}
    shown = [[image for style in options.styles for image in targets[style].private]]
    for attack in (attack for attack in ATTACKS if attack.name in options.attacks):
        outcomes: dict[str, Any] = {}
        found: dict[str, list[Any]] = {"without captions": [], "with captions": []}
        for style in options.styles:
            with tempfile.TemporaryDirectory() as root:
                outcome = carry_out(attack, open_agent(Path(root) / "home", targets[style]))
            outcomes[style] = {"orders answered": outcome.answered, "ended by": outcome.refused}
            PROGRESS_CONSOLE.print(f"{attack.name}, {style}: {outcomes[style]}")
            for name, pairs in compared(
                targets[style], outcome.shared, options.samples, options.seed
            ).items():
                found[name] += pairs
        chance = {
            "without captions": [x for style in options.styles for x in targets[style].chance_without],
            "with captions": [x for style in options.styles for x in targets[style].chance_with],
        }
        rows[attack.name] = {
            "order": {field.name: getattr(attack, field.name) for field in fields(attack)},
            "outcomes": outcomes,
            **{
                name: summary([value for value, _ in pairs], chance[name], options.seed)
                for name, pairs in found.items()
            },
        }
        for name in found:
            PROGRESS_CONSOLE.print(
                name, rows[attack.name][name]["gain_db"], rows[attack.name][name]["psnr_db"]
            )
        shown.append([image for _, image in found["without captions"]])
    report = {
        "what": "PSNR in dB of the closest drawn picture to each private one; 95 % intervals",
        "fedaigc": fedaigc.__version__,
        "commit": options.commit,
        "torch": torch.__version__,
        "seed": options.seed,
        "styles": options.styles,
        "private pictures of a home": options.pictures,
        "samples": options.samples,
        "attacks": rows,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.grid:
        grid(shown, options.grid)


if __name__ == "__main__":
    main()
