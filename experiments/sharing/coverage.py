"""How many prompts of public sets find a group; prints JSON.

    python -m experiments.sharing.coverage FOLDER --sentence MINILM --vocabulary MERGES --record FILE.json

FOLDER has text files of prompts, one a line, each prompt a device of its own; all of a file wait at once. A prompt is
covered if it is grouped under the rules of a run: at least 8 public captions disclose its node, at least two devices
are in the group, and the damage of K = 3 of 11 shared steps on the node's public caption is within .35 by the upper
end of its interval.

- "graph": the knowledge graph under the default policy, which knows no damage.
- "shipped": the sharing distance of the embedded model, its shipped atlas and calibration.
- "denoiser": the same with an atlas of the prompts of all other files.
- "random clip", "sentence": a space of text encodings, with an atlas of all other files. Such a space has no damage of
  its own. It is fitted on the pairs of Scenes of `distance`, whose damage the embedded model showed; beyond Scenes that
  is an assumption.

"partner" is the share of prompts with another one of the file that is near enough, without any rule on captions.
Spaces that --record holds are not computed again; `--recompute` is statistics only.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.progress import Progress

from experiments.default_atlas.build import default_setting
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from experiments.sharing.spaces import Encode, random_clip, sentence_space
from fedaigc.diffusion.loading import EMBEDDED
from fedaigc.errors import UserError
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import MIN_CAPTIONS, build_tree, read_captions
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.node_groups import node_groups
from fedaigc.semantics.denoiser.node_signature import NodeDisclosure
from fedaigc.semantics.denoiser.sharing_distance import phi
from fedaigc.semantics.denoiser.shipped import shipped_files
from fedaigc.semantics.grouping import Group, group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from fedaigc.storage.atomic_file import write_json

SHARED_STEPS, TOLERANCE, DEVICES = 3, 0.35, 2
PAIRS = Path("experiments/records/sharing/distance.json")
# what says nothing about the object, or about the place
VAGUE = ("thing", "object", "place")
Vectors = Mapping[str, Float[np.ndarray, " d"]]


@dataclass(frozen=True)
class Named:
    """A space of which only the hash matters."""

    hash: str


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of text files, one prompt a line")
    parser.add_argument("--sentence", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--vocabulary", type=Path, help="CLIP's byte-pair merges, for the random encoder")
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    files = {path.stem: read_captions(path) for path in sorted(options.folder.glob("*.txt"))}
    if not files:
        raise UserError(f"no text files in {options.folder}")
    one_thread()
    record = json.loads(options.record.read_text()) if options.record.is_file() else {}
    record |= {
        "what": "share of prompts in groups, by the space in which they are compared",
        "K": SHARED_STEPS,
        "N": 11,
        "tolerance": TOLERANCE,
        "public captions": MIN_CAPTIONS,
        "devices": DEVICES,
        "prompts": {name: len(lines) for name, lines in files.items()},
    }
    spaces = record.setdefault("spaces", {})

    def keep(name: str, found: dict[str, Any]) -> None:
        spaces[name] = found
        write_json(options.record, record)

    if "graph" not in spaces:
        keep("graph", {name: by_graph(lines) for name, lines in files.items()})
    if not {"shipped", "denoiser"} <= spaces.keys():
        pipe, _, space = default_setting()
        record["known"] = {name: known_words(pipe, lines) for name, lines in files.items()}
        vectors = encoded(lambda texts: phi(pipe, space, texts), files)
        atlas, curve = shipped_files(EMBEDDED)
        keep("shipped", by_nodes(files, vectors, Calibration.read(curve), Atlas.read(atlas)))
        keep("denoiser", by_nodes(files, vectors, Calibration.read(curve)))
    for name, path, make in (
        ("sentence", options.sentence, sentence_space),
        ("random clip", options.vocabulary, random_clip),
    ):
        if path is not None and name not in spaces:
            encode = make(path)
            keep(name, by_nodes(files, encoded(encode, files), calibration_from_pairs(name, encode)))
    write_json(options.record, record)
    print(json.dumps(record, indent=1))


def encoded(encode: Encode, files: Mapping[str, Sequence[str]]) -> Vectors:
    """Return the vector of every prompt of the files."""
    prompts = sorted({line for lines in files.values() for line in lines})
    found = []
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("prompts", total=len(prompts))
        for start in range(0, len(prompts), 64):
            found.append(encode(prompts[start : start + 64]))
            progress.advance(task, 64)
    return dict(zip(prompts, np.concatenate(found), strict=True))


def by_graph(lines: Sequence[str]) -> dict[str, float]:
    """Return the share of prompts that the knowledge graph groups, and how many of them on a vague prompt."""
    taxonomy = Taxonomy.load()
    signatures = {
        str(i): disclose(parse(line, taxonomy), Policy.KIND, taxonomy, 3) for i, line in enumerate(lines)
    }
    groups = [each for each in group(signatures, taxonomy) if len(each.members) > 1]
    vague = [each for each in groups if set(each.prompt.split()) & set(VAGUE)]
    return {
        "grouped": share_in(groups, len(lines)),
        "vague": round(share_in(vague, len(lines)) / max(share_in(groups, len(lines)), 1e-9), 4),
    }


def share_in(groups: Sequence[Group], count: int) -> float:
    """Return the share of prompts in these groups."""
    return round(sum(len(each.members) for each in groups) / count, 4)


def by_nodes(
    files: Mapping[str, Sequence[str]], vectors: Vectors, curve: Calibration, shipped: Atlas | None = None
) -> dict[str, Any]:
    """Return for each file the shares of prompts with a partner and in a group, and the groups' captions."""
    found = {}
    for name, lines in files.items():
        atlas = shipped or _atlas_of_others(name, files, vectors, curve.space)
        disclosure = NodeDisclosure(
            Named(curve.space),  # type: ignore[arg-type]  # only its hash is read
            atlas,
            MIN_CAPTIONS,
            SHARED_STEPS,
            curve,
            TOLERANCE,
            _vectors=dict(vectors),
        )
        signatures = {f"{i:05}": disclosure.disclose(None, line) for i, line in enumerate(lines)}
        owners = {task: i for i, task in enumerate(signatures)}
        groups = [g for g in node_groups(signatures, owners, atlas, DEVICES) if len(g.members) > 1]
        rows = np.stack([vectors[line] for line in lines])
        largest = sorted(groups, key=lambda each: -len(each.members))[:3]
        found[name] = {
            "grouped": share_in(groups, len(lines)),
            "partner": _with_partner(rows, curve),
            "groups": len(groups),
            "in the largest": round(max((len(g.members) for g in groups), default=0) / len(lines), 4),
            "largest": [[len(each.members), each.prompt] for each in largest],
        }
    return found


def _atlas_of_others(name: str, files: Mapping[str, Sequence[str]], vectors: Vectors, space: str) -> Atlas:
    own = set(files[name])
    others = sorted({line for other, lines in files.items() if other != name for line in lines} - own)
    rows = np.stack([vectors[line] for line in others])
    return build_tree(space, {"captions": f"all files but {name}"}, others, rows, MIN_CAPTIONS)


def _with_partner(rows: Float[np.ndarray, "n d"], curve: Calibration) -> float:
    squares = (rows.astype(float) ** 2).sum(1)
    apart = squares[:, None] + squares[None] - 2 * rows.astype(float) @ rows.T.astype(float)
    np.fill_diagonal(apart, np.inf)
    nearest = np.sqrt(np.maximum(apart.min(1), 0))
    k = min(step for step in curve.handoffs if step >= SHARED_STEPS)
    return round(float(np.mean([curve.last_handoff(d, TOLERANCE, (k,)) == k for d in nearest])), 4)


def calibration_from_pairs(space: str, encode: Encode) -> Calibration:
    """Return the damage that pairs of Scenes did with the embedded model, over their distance in another space."""
    measured = json.loads(PAIRS.read_text())
    pairs = measured["pairs"]
    wanted = {"scheduler": "DDIMScheduler", "N": 11, "guidance": 5.0}
    (setting,) = (each for each in measured["settings"] if wanted.items() <= each.items())
    prompts = sorted({*pairs["own"], *pairs["other"]})
    vectors = dict(zip(prompts, encode(prompts), strict=True))
    distances = tuple(
        round(float(np.linalg.norm(vectors[a] - vectors[b])), 6)
        for a, b in zip(pairs["own"], pairs["other"], strict=True)
    )
    damages = {k: tuple(values["damage"]) for k, values in setting["K"].items() if k != "0"}
    return Calibration(space, "", "DDIMScheduler", 11, 5.0, "", 0, distances, damages)


def known_words(pipe: Any, lines: Sequence[str]) -> dict[str, float]:
    """Return how much of prompts an encoder's vocabulary knows: words that are one token, and what is cut off."""
    words = [word for line in lines for word in line.lower().replace(",", " ").replace(".", " ").split()]
    vocabulary = pipe.tokenizer.get_vocab()
    known = [(f"{word}</w>" in vocabulary and len(word) > 1) or word == "a" for word in words]
    tokens = [len(pipe.tokenizer(line)["input_ids"]) for line in lines]
    return {
        "words": round(float(np.mean(known)), 4),
        "cut": round(float(np.mean([n > pipe.tokenizer.model_max_length for n in tokens])), 4),
    }


if __name__ == "__main__":
    main()
