"""How well distances of two prompts predict whether they can share their first steps; prints JSON.

    python -m experiments.sharing.distance --record experiments/records/sharing/distance.json
    python -m experiments.sharing.distance --record ... --recompute     # statistics only

For each pair of `graded_pairs`, the first K of N steps run on the other member's prompt, the rest on the target's. The
judge says whether the object and the place of the target are there. The area under the ROC curve of a distance is the
probability that a pair that lost something is further apart than one that kept both. Intervals are 95 %, bootstrap
over target objects, since pairs that share an object are alike. One setting is varied at a time. The damage is
label-free: the distance of the final latents to those of the run alone, as a share of their norm.

`--sentence FOLDER` adds a sentence encoder (a folder of all-MiniLM-L6-v2). Settings that --record holds are not
measured again, so an interrupted command can be repeated. The batches are the same for any number of --processes.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import diffusers
import numpy as np
import torch
from jaxtyping import Float
from rich.progress import Progress

import fedaigc
from experiments.paper.setting import batches
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from experiments.sharing.pairs import GradedPair, graded_pairs
from experiments.sharing.roc import clustered_area, clustered_difference
from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.segment import decode, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.metrics.intervals import Estimate
from fedaigc.metrics.judge import Judge
from fedaigc.rng import derived_seed
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, answers, phi
from fedaigc.semantics.grouping import distance as graph_distance
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from fedaigc.storage.atomic_file import write_json

DDIM, SOLVER, EULER = "DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"
# scheduler, N, guidance: one varied at a time
SETTINGS = [
    (DDIM, 11, 5.0),
    (DDIM, 8, 5.0),
    (DDIM, 11, 1.0),
    (DDIM, 11, 3.0),
    (DDIM, 11, 7.5),
    (SOLVER, 11, 5.0),
    (EULER, 11, 5.0),
    (DDIM, 20, 5.0),
    (DDIM, 50, 5.0),
]
# hand-offs as shares of N; only the first where pictures cost most
SHARES, MOST_STEPS = (3 / 11, 5 / 11, 7 / 11), 50
# an area needs some pairs of either outcome
FEWEST = 10


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--each", type=int, default=60, help="pairs of each of the five grades")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentence", type=Path, help="folder of a sentence encoder, e.g. all-MiniLM-L6-v2")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1, help="that draw, of one thread each")
    parser.add_argument("--recompute", action="store_true", help="statistics only")
    options = parser.parse_args()
    record = json.loads(options.record.read_text()) if options.record.is_file() else None
    if not options.recompute:
        record = measure(options, record)
    if record is None:
        parser.error(f"no record {options.record}")
    summarise(record, everything=options.recompute)
    write_json(options.record, record)
    print(json.dumps([summary(setting) for setting in record["settings"]], indent=1))


def measure(options: argparse.Namespace, record: dict[str, Any] | None) -> dict[str, Any]:
    """Run the settings that the record does not have yet; it is written after each."""
    one_thread()
    pairs = graded_pairs(options.each, options.seed)
    pipe: Any = load_pipeline()
    stock, base = pipe.scheduler, base_fingerprint(pipe)
    if record is None or record["base"] != base or len(record["pairs"]["own"]) != len(pairs):
        record = {
            "what": "distances of two prompts, and what is left of the target after shared steps on the other",
            "fedaigc": fedaigc.__version__,
            "torch": torch.__version__,
            "base": base,
            "seed": options.seed,
            "pairs": {name: [asdict(pair)[name] for pair in pairs] for name in asdict(pairs[0])},
            "settings": [],
        }
    workers = ProcessPoolExecutor(options.processes, get_context("spawn"), _open)
    with workers, Progress(console=PROGRESS_CONSOLE) as progress:
        for name, steps, guidance in SETTINGS:
            key = {"scheduler": name, "N": steps, "guidance": guidance}
            if any(key.items() <= done.items() for done in record["settings"]):
                continue
            plan = _plan(pipe, stock, base, key)
            task = progress.add_task(f"{name} N={steps} w={guidance}", total=len(pairs))
            asked = [
                workers.submit(_outcomes, base, key, [pairs[i] for i in rows], options.seed, rows.start)
                for rows in batches(len(pairs))
            ]
            found: dict[str, dict[str, list[float]]] = {}
            for future in asked:
                for k, part in future.result().items():
                    into = found.setdefault(k, {what: [] for what in part})
                    for what, values in part.items():
                        into[what] += values
                progress.advance(task, len(future.result()["0"]["object"]))
            record["settings"].append(
                {**key, "distances": distances(pipe, plan, pairs, options.sentence), "K": found}
            )
            write_json(options.record, record)
    return record


def _plan(pipe: Any, stock: Any, base: str, key: Mapping[str, Any]) -> DenoisingPlan:
    """Give the pipeline the scheduler of a setting, and return the setting's plan."""
    pipe.scheduler = getattr(diffusers, key["scheduler"]).from_config(stock.config)
    return build_plan(
        pipe,
        num_inference_steps=key["N"],
        guidance_scale=key["guidance"],
        height=64,
        width=64,
        base_hash=base,
    )


@cache
def _open() -> tuple[Any, Any, Judge]:
    """Return the pipeline, its own scheduler and the judge, once in each process."""
    one_thread()
    pipe: Any = load_pipeline()
    return pipe, pipe.scheduler, Judge.load()


def _outcomes(
    base: str, key: Mapping[str, Any], pairs: Sequence[GradedPair], seed: int, start: int
) -> dict[str, dict[str, list[float]]]:
    """Return by K (0: alone), for each pair of a batch: object seen, place seen, and the damage."""
    pipe, stock, judge = _open()
    plan = _plan(pipe, stock, base, key)
    own, other = {"prompt": [p.own for p in pairs]}, {"prompt": [p.other for p in pairs]}
    begun = [initial_state(pipe, plan, derived_seed(seed, "noise", start + i)) for i in range(len(pairs))]
    state = replace(begun[0], latents=torch.cat([one.latents for one in begun]))
    alone = run_segment(pipe, state, own, plan, plan.num_steps).latents
    found: dict[str, dict[str, list[float]]] = {}
    shares = SHARES if plan.num_steps < MOST_STEPS else SHARES[:1]
    for k in (0, *sorted({max(1, round(share * plan.num_steps)) for share in shares})):
        if k:
            state = run_segment(pipe, state, other, plan, k)
        final = alone if not k else run_segment(pipe, state, own, plan, plan.num_steps).latents
        verdicts = judge.score(decode(pipe, final, plan))
        damage = (final - alone).flatten(1).norm(dim=1) / alone.flatten(1).norm(dim=1)
        found[str(k)] = {
            "object": [int(v.object == p.object) for v, p in zip(verdicts, pairs, strict=True)],
            "place": [int(v.place == p.place) for v, p in zip(verdicts, pairs, strict=True)],
            "damage": [round(float(x), 4) for x in damage],
        }
    return found


def distances(
    pipe: Any, plan: DenoisingPlan, pairs: Sequence[GradedPair], sentence: Path | None
) -> dict[str, list[float]]:
    """Return each distance for each pair, by its name."""
    prompts = sorted({text for pair in pairs for text in (pair.own, pair.other)})
    at = {text: i for i, text in enumerate(prompts)}
    one, two = [at[pair.own] for pair in pairs], [at[pair.other] for pair in pairs]

    def apart(vectors: Float[np.ndarray, "n d"]) -> list[float]:
        return [round(float(x), 5) for x in np.linalg.norm(vectors[one] - vectors[two], axis=1)]

    def turned(vectors: Float[np.ndarray, "n d"]) -> list[float]:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return [round(float(1 - x), 6) for x in (unit[one] * unit[two]).sum(1)]

    space = DenoiserSpace.of(plan, 1, 0)
    raw = phi(pipe, space, prompts)
    empty = answers(pipe, space.plan, [""], 0).numpy()
    text = [encode_text(pipe, prompts[i : i + 64])["prompt_embeds"] for i in range(0, len(prompts), 64)]
    tokens = torch.cat(text).float().numpy()
    found = {"phi": apart(raw)}
    for noises in (2, 4):
        found[f"phi, {noises} noises"] = apart(phi(pipe, DenoiserSpace.of(plan, noises, 0), prompts))
    for numbers in (16, 64, 256):
        found[f"phi, {numbers} numbers"] = apart(phi(pipe, DenoiserSpace.of(plan, 1, numbers), prompts))
    found["cosine of conditional minus unconditional"] = turned(raw - empty)
    found["text encoder, tokens"] = turned(tokens.reshape(len(prompts), -1))
    found["text encoder, mean"] = turned(tokens.mean(1))
    taxonomy = Taxonomy.load()
    signatures = [disclose(parse(text, taxonomy), Policy.EXACT, taxonomy, 1) for text in prompts]
    found["knowledge graph"] = [
        round(graph_distance(a, b, taxonomy), 5)
        for i, j in zip(one, two, strict=True)
        if (a := signatures[i]) is not None and (b := signatures[j]) is not None
    ]
    if sentence is not None:
        found["sentence encoder"] = turned(sentences(sentence, prompts))
    return found


def sentences(folder: Path, prompts: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """Return the mean of the token states of a BERT-like encoder, which is how MiniLM encodes sentences."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for start in range(0, len(prompts), 32):
        given = tokenizer(
            list(prompts[start : start + 32]), padding=True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(**given).last_hidden_state
        mask = given["attention_mask"][..., None]
        rows.append(((states * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(rows)


def summarise(record: dict[str, Any], *, everything: bool = True) -> None:
    """Compute rates, areas and differences of areas to phi, from the values of every pair; else only what is missing.

    Besides the loss of either, the object's and the place's are predicted each, and the object's within pairs at the
    same place: a distance could owe its area to telling places apart alone.
    """
    clusters, grades = record["pairs"]["object"], record["pairs"]["grade"]
    here = [grade in ("kind and place", "place") for grade in grades]
    for setting in record["settings"]:
        if not everything and "areas" in setting:
            continue
        setting["kept"], setting["areas"], setting["phi minus"], setting["label-free"] = {}, {}, {}, {}
        phi_ = setting["distances"]["phi"]
        for k, values in setting["K"].items():
            lost = lost_of(values)
            everywhere = [True] * len(here)
            labels = {
                "either": (lost["either"], everywhere),
                "object": (lost["object"], everywhere),
                "place": (lost["place"], everywhere),
                "object, same place": (lost["object"], here),
            }
            setting["kept"][k] = {name: round(1 - fmean(label), 3) for name, label in lost.items()}
            if k == "0":
                continue
            setting["areas"][k], setting["phi minus"][k] = {}, {}
            for name, (label, among) in labels.items():
                rows = [i for i, counts in enumerate(among) if counts]
                chosen, groups = [label[i] for i in rows], [clusters[i] for i in rows]
                if min(sum(chosen), len(chosen) - sum(chosen)) < FEWEST:
                    continue
                found = {d: [v[i] for i in rows] for d, v in setting["distances"].items()}
                setting["areas"][k][name] = {
                    d: clustered_area(v, chosen, groups).as_dict() for d, v in found.items()
                }
                setting["phi minus"][k][name] = {
                    d: clustered_difference(found["phi"], v, chosen, groups).as_dict()
                    for d, v in found.items()
                    if d != "phi"
                }
            setting["label-free"][k] = {
                "area of the damage": clustered_area(values["damage"], lost["either"], clusters).as_dict(),
                "rank correlation with phi": rank_correlation(values["damage"], phi_),
            }


def summary(setting: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader looks at first: the areas for the loss of either."""
    return {name: setting[name] for name in ("scheduler", "N", "guidance", "kept", "label-free")} | {
        f"K = {k}": {d: str(Estimate(**v)) for d, v in found.get("either", {}).items()}
        for k, found in setting["areas"].items()
    }


def lost_of(values: Mapping[str, Sequence[float]]) -> dict[str, list[bool]]:
    """Return whether object, place, or either of the two is missing in each picture."""
    lost = {name: [not seen for seen in values[name]] for name in ("object", "place")}
    return lost | {"either": [a or b for a, b in zip(lost["object"], lost["place"], strict=True)]}


def rank_correlation(one: Sequence[float], two: Sequence[float]) -> float:
    """Return Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return round(float(spearmanr(one, two).statistic), 4)


if __name__ == "__main__":
    main()
