"""Measure the effect of one hostile device of eight on the held-out loss of a run, by rule; prints a table.

    python -m experiments.privacy.byzantine --output FILE.json --table FILE.md

All devices train on x and obtain y. The hostile device then changes its reply:

    flip x10         sends x - 10 (y - x) in place of y
    n_k              claims 1e12 pictures
    3e38             sends this number in all values
    within bounds    claims 1e7 pictures from the start and sends x - 3 (y - x), which bounds cannot distinguish from
                     an honest update
    as received      claims 1e7 pictures and sends x, which is closer to all updates than they are to each other.
                     Rules that select by distance select it, and its number of pictures determines its weight.

The loss is the denoising loss of the shared stage on pictures of the devices' styles that no device trains on.
`one honest round less` is the loss of the honest run before its last round. A run "ended" if the server aborted it. The
client halves of these rules are the same, so the update of a device for a state is computed only once.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from tqdm import tqdm

from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.provision import SceneClient, provision_scenes
from fedaigc.diffusion.encoding import encode_images
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.errors import UserError
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.checkpoint import load_checkpoint
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import read_record
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire import messages
from fedaigc.federation.wire.flat_arrays import array_of, flatten
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT, values_of
from fedaigc.study.execute.evaluation import Evaluator

CLIENTS, HOSTILE, ROUNDS, STEPS, PICTURES, SIZE = 8, 3, 3, 4, 16, 32
STYLES = ("blob", "openmoji")  # styles that the shipped model has not seen, so that it can learn something
TRIPLES, HELD_OUT, SEED = 32, 16, 0
LIE, SHOWN = 10**12, 10**7
ROBUST = ("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan")
# rows that are a strategy with other options, here Flower's own versions of two rules
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "multikrum, by examples": ("multikrum", {"weighting": "examples"}),
    "bulyan, one pass": ("bulyan", {"iterated": False}),
}
RULES = (("fedavg", 0), *((rule, f) for rule in (*ROBUST, *OPTIONS) for f in (0, 1)))

Attack = Callable[[np.ndarray, np.ndarray], np.ndarray]
# sent weights from received and trained ones; claimed pictures in an update, and at hello (None: the truth)
ATTACKS: dict[str, tuple[Attack, int | None, int | None]] = {
    "honest": (lambda x, y: y, None, None),
    "flip x10": (lambda x, y: x - 10 * (y - x), None, None),
    "n_k 1e12": (lambda x, y: y, LIE, None),
    "n_k 1e12 from hello on": (lambda x, y: y, LIE, LIE),
    "3e38": (lambda x, y: np.full_like(y, 3e38), None, None),
    "flip x10, n_k 1e12": (lambda x, y: x - 10 * (y - x), LIE, None),
    "within bounds": (lambda x, y: x - 3 * (y - x), SHOWN, SHOWN),
    "as received": (lambda x, y: x, SHOWN, SHOWN),
}


class HostileGrid(LocalGrid):
    """A grid in which the device of client HOSTILE carries out an attack."""

    attack = "honest"
    trained: ClassVar[dict[tuple[Any, ...], bytes]] = {}

    def _answer(self, message: Message) -> Message:
        client = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
        key: tuple[Any, ...] = ()
        if message.metadata.message_type == "train":
            received = messages.read_train(message.content)
            key = (client, received.round, received.shared.hash())
        if key in self.trained:
            content = recorddict_from_proto(ProtoRecordDict.FromString(self.trained[key]))
            reply = Message(content, reply_to=message)
        else:
            reply = super()._answer(message)
            if key and reply.has_content():
                self.trained[key] = recorddict_to_proto(reply.content).SerializeToString()
        if client != HOSTILE or self.attack == "honest" or not reply.has_content():
            return reply
        change, claimed, shown = ATTACKS[self.attack]
        kind = message.metadata.message_type
        if kind == "train" and ARRAYS in reply.content:
            _set(reply.content, num_examples=claimed)
            before = flatten(messages.read_train(message.content).shared.tensors())
            trained = array_of(values_of(reply.content, ARRAYS)[FLAT].data)
            sent = change(before, trained).astype(np.float32)
            reply.content[ARRAYS] = ArrayRecord({FLAT: Array(sent)})
        elif kind == "query.hello":
            _set(reply.content, num_examples=shown)
        return reply


def _set(content: RecordDict, **values: int | None) -> None:
    given = {name: value for name, value in values.items() if value is not None}
    content[BODY] = ConfigRecord({**values_of(content), **given})


def run(config: FederationConfig, attack: str) -> str:
    """Execute a run, and return "finished" or why it ended."""
    with in_process_run(config) as run_id:
        grid = HostileGrid(app, num_clients=CLIENTS, run_config=config.to_run_config(), run_id=run_id)
        grid.attack = attack
        try:
            serve(grid, config)
        except UserError as error:
            return f"ended: {str(error).splitlines()[0]}"
    return "finished"


def configuration(homes: Path, folder: Path, rule: str, attackers: int, rounds: int) -> FederationConfig:
    strategy, options = OPTIONS.get(rule, (rule, {}))
    section: dict[str, Any] = {"count": rounds, "strategy": strategy, "options": options}
    if attackers:
        section["attackers"] = attackers
    return parse_config(
        {
            "homes": homes,
            "output": folder,
            "num_clients": CLIENTS,
            "seed": SEED,
            "resume": True,
            "model": {"height": SIZE, "width": SIZE},
            "adapter": {"rank": 4},
            "rounds": section,
            "training": {
                "local_steps": STEPS,
                "personal_steps": 0,
                "batch_size": 2,
                "learning_rate": 3e-3,
            },
            "generation": {"enabled": False},
        }
    )


def evaluator() -> Evaluator:
    """Return the losses on pictures of each style that no device has."""
    config = configuration(Path(), Path(), "fedavg", 0, 1)
    pipe, _ = base_model(config.model)
    data = []
    for at, style in enumerate(STYLES):
        rows = list(scenes_dataset(HELD_OUT, 1000 + at, styles=(style,)))
        pictures, captions = [row["image"] for row in rows], [row["caption"] for row in rows]
        data.append(encode_images(pipe, pictures, captions, height=SIZE, width=SIZE))
    timestep = config.adapter.boundary_timestep
    assert timestep is not None
    return Evaluator(pipe, data, boundary_log_snr=boundary_log_snr(pipe, timestep), count=TRIPLES, seed=SEED)


def cell(rule: str, attackers: int, attack: str, losses: Evaluator, work: Path) -> dict[str, Any]:
    """Execute one run, and return its end, its loss and what the server reported."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        found: dict[str, Any] = {"rule": rule, "attackers": attackers, "attack": attack}
        if attack == "honest":
            less = configuration(work / "homes", Path(folder), rule, attackers, ROUNDS - 1)
            run(less, attack)
            found["one_round_less"] = _loss(losses, load_shared_state(less.output))
        config = configuration(work / "homes", Path(folder), rule, attackers, ROUNDS)
        found["status"] = run(config, attack)
        if found["status"] == "finished":
            state: Any = load_shared_state(config.output)
        else:
            held = load_checkpoint(config)
            state = held.shared if held is not None else None
        found["loss"] = _loss(losses, state)
        rounds = read_record(config.output).rounds
        found["rounds"] = [
            {key: getattr(done, key) for key in ("refused", "capped", "rejected", "fell_back_to")}
            for done in rounds
        ]
    return found | {"seconds": round(time.monotonic() - began, 1)}


def _loss(losses: Evaluator, state: Any) -> float | None:
    """Return the mean loss over the styles, or None if it is not finite."""
    losses.forget()
    values = [losses.shared_loss(state, at) for at in range(len(STYLES))]
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else None


def table(rows: list[dict[str, Any]], base: float | None) -> str:
    """Return the results as a Markdown table of rules and attacks."""
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    lines = [
        "| rule, f | one honest round less | " + " | ".join(attacks) + " |",
        "| --- | ---: |" + " ---: |" * len(attacks),
    ]
    by = {(row["rule"], row["attackers"], row["attack"]): row for row in rows}
    for rule, f in dict.fromkeys((row["rule"], row["attackers"]) for row in rows):
        less = by.get((rule, f, "honest"), {}).get("one_round_less")
        cells = [_told(by.get((rule, f, attack)), less) for attack in attacks]
        lines.append(f"| {rule}, {f} | {_number(less)} | " + " | ".join(cells) + " |")
    lines += ["", f"The base model has {_number(base)}. Bold: above one honest round less, or ended."]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _told(row: dict[str, Any] | None, less: float | None) -> str:
    if row is None:
        return ""
    ended = "" if row["status"] == "finished" else ", ended"
    worse = bool(ended) or row["loss"] is None or (less is not None and row["loss"] > less)
    text = f"{_number(row['loss'])}{ended}"
    return f"**{text}**" if worse else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="write the record to this file, as JSON")
    parser.add_argument("--table", type=Path, help="write the table to this file, as Markdown")
    parser.add_argument("--rules", nargs="*", help='e.g. "fedavg:0 krum:1"; default: all')
    parser.add_argument("--attacks", nargs="*", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--commit", help="commit of the attacked code; default: that of this checkout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # rounds with too few updates are in the record
    chosen = [(name, int(f)) for name, _, f in (rule.partition(":") for rule in options.rules or ())]
    losses, began = evaluator(), time.monotonic()
    rows: list[dict[str, Any]] = []
    cells = [(rule, f, attack) for rule, f in chosen or RULES for attack in options.attacks]
    with tempfile.TemporaryDirectory() as work:
        clients = [SceneClient(STYLES[at % len(STYLES)], PICTURES) for at in range(CLIENTS)]
        provision_scenes(Path(work) / "homes", clients, SEED)
        for rule, f, attack in tqdm(cells, file=sys.stderr):
            rows.append(cell(rule, f, attack, losses, Path(work)))
    base = _loss(losses, None)
    report = {
        "what": "loss on held-out pictures under one hostile device, by rule and attack",
        "commit": options.commit or _commit(),
        "setting": {
            "clients": CLIENTS,
            "hostile": 1,
            "rounds": ROUNDS,
            "local steps": STEPS,
            "pictures a client": PICTURES,
            "pixels": SIZE,
            "rank": 4,
            "styles": STYLES,
            "triples a style": TRIPLES,
            "seed": SEED,
        },
        "runs": len(rows),
        "ended": sum(row["status"] != "finished" for row in rows),
        "base_loss": base,
        "seconds": round(time.monotonic() - began, 1),
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    text = table(rows, base)
    if options.table is not None:
        options.table.write_text(text, encoding="utf-8")
    print(text)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
