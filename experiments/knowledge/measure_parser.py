"""Measure the parser on captions.jsonl, 200 captions with nouns from outside Scenes, and print JSON.

    python experiments/knowledge/measure_parser.py [--mistakes]

Each caption is labelled with the WordNet 3.1 concepts of its object and place and with its relation. A label is null
if the graph or the closed list of relations does not contain it. The captions were written before the parser, by the
same author. Every second caption is marked `tuned_on`: errors on these were inspected and fixed. The others were not
used in this way, but the senses of common nouns were chosen from WordNet's lists for both halves. The results are
therefore no estimate for prompts of other people.

    object, relation, place   share of captions whose parse has exactly this value
    all                       all three at once
    disclosed                 the policy "kind" discloses what it would for the expected concepts
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from fedaigc.metrics.intervals import proportion
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

CAPTIONS = Path(__file__).with_name("captions.jsonl")


def outcomes(expected: dict[str, str | None], taxonomy: Taxonomy) -> dict[str, bool]:
    """Return which parts of one caption's parse are correct."""
    parsed = parse(str(expected["caption"]), taxonomy)
    relation = Relation(expected["relation"]) if expected["relation"] else None
    right = {
        "object": parsed.object == expected["object"],
        "relation": parsed.relation == relation,
        "place": parsed.place == expected["place"],
    }
    # a concept that the graph lacks cannot be disclosed, so the correct disclosure omits it
    known = {key: expected[key] if expected[key] in taxonomy else None for key in ("object", "place")}
    meant = replace(parsed, object=known["object"], relation=relation, place=known["place"])
    disclosed, ought = (disclose(said, Policy.KIND, taxonomy) for said in (parsed, meant))
    return right | {"all": all(right.values()), "disclosed": disclosed == ought}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mistakes", action="store_true", help="list the captions with a wrong parse")
    arguments = parser.parse_args()
    taxonomy = Taxonomy.load()
    parts: defaultdict[str, defaultdict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    mistakes = []
    for line in CAPTIONS.read_text().splitlines():
        expected = json.loads(line)
        right = outcomes(expected, taxonomy)
        for name, outcome in right.items():
            parts["tuned on" if expected["tuned_on"] else "only measured"][name].append(outcome)
            parts["every caption"][name].append(outcome)
        if not right["all"]:
            mistakes.append(
                {
                    "caption": expected["caption"],
                    "tuned_on": expected["tuned_on"],
                    "wrong": [name for name, outcome in right.items() if not outcome],
                }
            )
    report: dict[str, object] = {
        part: {name: proportion(outcomes).as_dict() for name, outcomes in scores.items()}
        for part, scores in parts.items()
    }
    if arguments.mistakes:
        report["mistakes"] = mistakes
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
