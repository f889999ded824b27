"""How many prompts of public sets find a group; prints JSON.

    python -m experiments.sharing.coverage FOLDER --sentence MINILM --vocabulary MERGES --parts SCRATCH \\
        --record experiments/records/sharing/coverage.json

FOLDER has text files of prompts, one a line, each prompt a device of its own; all of a file wait at once. A prompt is
covered if it is grouped under the rules of a run: at least 8 public captions disclose its node, at least two devices
are in the group, and the damage of K = 3 of 11 shared steps on the node's public caption is within the tolerance,
at the risk that is allowed. "expected": the same by the expected damage alone, whatever its spread.

- "graph": the knowledge graph under the default policy, which knows no damage.
- "shipped": the sharing distance of the embedded model, its shipped atlas and calibration.
- "denoiser": the same with an atlas of the prompts of all other files.
- "random clip", "sentence": a space of text encodings, with an atlas of all other files. Such a space has no damage of
  its own. It is fitted on the pairs of Scenes of `distance`, whose damage the embedded model showed; beyond Scenes that
  is an assumption.

"partner" is the share of prompts with another one of the file that is near enough, without any rule on captions.
Spaces that --record holds are not computed again.
"""

import argparse
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import Progress

from experiments.default_atlas.build import default_setting
from experiments.pretrain.recipe import bytes_to_unicode
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from experiments.sharing.distance import sentences
from fedaigc.diffusion.loading import EMBEDDED
from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import MIN_CAPTIONS, build_tree, read_captions
from fedaigc.semantics.denoiser.calibration import RISK, TOLERANCE, Calibration
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_groups import node_groups
from fedaigc.semantics.denoiser.sharing_distance import phi
from fedaigc.semantics.denoiser.shipped import shipped_files
from fedaigc.semantics.grouping import Group, group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from fedaigc.storage.atomic_file import write_json

SHARED_STEPS, DEVICES = 3, 2
SAMPLE = 150
"""Prompts of each file for the random encoder, which is slow."""
PAIRS = Path("experiments/records/sharing/distance.json")
# text encoder of Stable Diffusion 1: openai/clip-vit-large-patch14
_WIDTH, _LAYERS, _HEADS, _TOKENS = 768, 12, 12, 77
_MERGES = 49152 - 256 - 2
# what says nothing about the object, or about the place
VAGUE = ("thing", "object", "place")
Encode = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
Vectors = Mapping[str, Float[np.ndarray, " d"]]


@dataclass(frozen=True)
class Named:
    """A space of which only the hash matters."""

    hash: str


class Expected(Calibration):
    """A calibration by which the expected damage decides."""

    def last_handoff(
        self,
        distance: float,
        tolerance: float,
        ladder: Sequence[int] | None = None,
        *,
        risk: float = RISK,
    ) -> int:
        """Return the last hand-off of a ladder whose expected damage is within the tolerance."""
        if not 0 <= distance <= self.knots[-1]:
            return 0
        fitting = [k for k in self.handoffs if self.damage(k, distance)[0] <= tolerance]
        return max((k for k in ladder or self.handoffs if k <= max(fitting, default=0)), default=0)


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of text files, one prompt a line")
    parser.add_argument("--sentence", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--vocabulary", type=Path, help="CLIP's byte-pair merges, for the random encoder")
    parser.add_argument(
        "--parts", type=Path, required=True, help="folder for the vectors of an interrupted call"
    )
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
        "risk": RISK,
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
        vectors = encoded(lambda texts: phi(pipe, space, texts), files, options.parts / "phi")
        atlas, curve = shipped_files(EMBEDDED)
        keep("shipped", by_nodes(files, vectors, Calibration.read(curve), Atlas.read(atlas)))
        keep("denoiser", by_nodes(files, vectors, Calibration.read(curve)))
    for name, path, make in (
        ("sentence", options.sentence, sentence_space),
        ("random clip", options.vocabulary, random_clip),
    ):
        if path is not None and name not in spaces:
            encode, asked = make(path), files
            if name == "random clip":
                record["random clip prompts"] = SAMPLE
                asked = {stem: sample(stem, lines) for stem, lines in files.items()}
            vectors = encoded(encode, asked, options.parts / name)
            keep(name, by_nodes(asked, vectors, calibration_from_pairs(name, encode)))
    write_json(options.record, record)
    print(json.dumps(record, indent=1))


def sample(stem: str, lines: Sequence[str]) -> list[str]:
    """Return SAMPLE prompts of a file, or all."""
    chosen = sorted(numpy_rng(0, "prompts", stem).permutation(len(lines))[:SAMPLE])
    return [lines[row] for row in chosen]


def encoded(encode: Encode, files: Mapping[str, Sequence[str]], parts: Path) -> Vectors:
    """Return the vector of every prompt of the files; what `parts` holds is not computed again."""
    prompts = sorted({line for lines in files.values() for line in lines})
    found = []
    parts.mkdir(parents=True, exist_ok=True)
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("prompts", total=len(prompts))
        for start in range(0, len(prompts), 512):
            part = parts / f"{start:05}.npy"
            if not part.is_file():
                np.save(part, encode(prompts[start : start + 512]))
            found.append(np.load(part))
            progress.advance(task, 512)
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
    expected = Expected(**{each.name: getattr(curve, each.name) for each in fields(curve)})
    for name, lines in files.items():
        atlas = shipped or _atlas_of_others(name, files, vectors, curve.space)
        groups = _groups(lines, vectors, atlas, curve)
        rows = np.stack([vectors[line] for line in lines])
        largest = sorted(groups, key=lambda each: -len(each.members))[:3]
        found[name] = {
            "grouped": share_in(groups, len(lines)),
            "partner": _with_partner(rows, curve),
            "expected": share_in(_groups(lines, vectors, atlas, expected), len(lines)),
            "expected partner": _with_partner(rows, expected),
            "groups": len(groups),
            "largest": [[len(each.members), each.prompt] for each in largest],
        }
    return found


def _groups(lines: Sequence[str], vectors: Vectors, atlas: Atlas, curve: Calibration) -> list[Group]:
    disclosure = NodeDisclosure(
        Named(curve.space),  # type: ignore[arg-type]  # only its hash is read
        atlas,
        MIN_CAPTIONS,
        SHARED_STEPS,
        curve,
        TOLERANCE,
        risk=RISK,
        _vectors=dict(vectors),
    )
    signatures = {f"{i:05}": disclosure.disclose(None, line) for i, line in enumerate(lines)}
    owners = {task: i for i, task in enumerate(signatures)}
    return [each for each in node_groups(signatures, owners, atlas, DEVICES) if len(each.members) > 1]


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
    return round(float(np.mean([curve.last_handoff(d, TOLERANCE, (k,), risk=RISK) == k for d in nearest])), 4)


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


def unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Return rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def sentence_space(folder: Path) -> Encode:
    """Return all-MiniLM-L6-v2 as a space of its own: unit means of token states."""
    return lambda prompts: unit(sentences(folder, list(prompts)))


def random_clip(vocabulary: Path, seed: int = 0) -> Encode:
    """Return a CLIP text encoder of Stable Diffusion's size with random weights: unit means of token states.

    Args:
        vocabulary: The byte-pair merges of CLIP, bpe_simple_vocab_16e6.txt.gz.
        seed: Seed of the weights.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    words = clip_tokenizer(vocabulary)
    torch.manual_seed(seed)
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            max_position_embeddings=_TOKENS,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    ).eval()

    def encode(prompts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        rows = []
        for prompt in prompts:
            # causal attention: the states of a prompt do not depend on padding behind it
            ids = words(prompt, truncation=True, max_length=_TOKENS, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                rows.append(model(ids).last_hidden_state[0].mean(0).numpy())
        return unit(np.stack(rows))

    return encode


def clip_tokenizer(vocabulary: Path) -> Any:
    """Return CLIP's tokenizer from its file of merges."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
    merges: Any = [tuple(line.split()) for line in lines]
    symbols = list(bytes_to_unicode().values())
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=_TOKENS
    )


if __name__ == "__main__":
    main()
