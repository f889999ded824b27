"""Measure how many public prompts a device's disclosures identify, and the cost of hiding them.

    python -m experiments.privacy.anonymity --output experiments/records/privacy/anonymity.json

Every one of the 720 public prompts (24 objects x 3 relations x 10 places of Scenes) is disclosed under each policy
and m = `min_public_prompts`. The observer knows the policy, m and the code, sees the signature or its absence, and
has a uniform prior over the 720. There is no sampling: the shares are exact.

    identified_object, identified_prompt   share of the prompts whose answer leaves one object, one prompt
    smallest_class_objects, _prompts       smallest number that gives the same answer
    guess_object, guess_prompt             mean posterior of the best guess; chance is 1/24 and 1/720
    asked_repeatedly                       the same, if the observer also asks under every more restrictive policy and
                                           every larger m up to 24, and combines the answers
    signatures                             number of different signatures that are disclosed
    disclosed                              share of the prompts that have a signature
    sharing_pairs                          share of the pairs of prompts in one relation that are grouped
    demo_groups                            sizes of the groups of the demo's eight prompts
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

from fedaigc.demo.settings import CAST
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, drawn_nouns, render_prompt
from fedaigc.semantics.grouping import MAX_DISTANCE, distance, group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

# from the largest disclosure to the smallest
POLICIES = (Policy.EXACT, Policy.KIND, Policy.GENERAL)
MINIMA = (1, 3, 5)
LARGEST = 24

Prompt = tuple[str, Relation, str]


def public_prompts() -> dict[Prompt, Any]:
    """Return every public prompt, parsed."""
    taxonomy = Taxonomy.load()
    triples = product(drawn_nouns(Role.OBJECT), Relation, drawn_nouns(Role.PLACE))
    return {triple: parse(render_prompt(*triple), taxonomy) for triple in triples}


def anonymity(answers: Mapping[Prompt, Hashable]) -> dict[str, Any]:
    """Return what an observer of these answers can infer."""
    classes: defaultdict[Hashable, list[Prompt]] = defaultdict(list)
    for prompt, answer in answers.items():
        classes[answer].append(prompt)
    objects = [Counter(thing for thing, _, _ in prompts) for prompts in classes.values()]
    total = len(answers)
    return {
        "identified_object": sum(sum(o.values()) for o in objects if len(o) == 1) / total,
        "identified_prompt": sum(len(prompts) == 1 for prompts in classes.values()) / total,
        "smallest_class_objects": min(len(o) for o in objects),
        "smallest_class_prompts": min(len(prompts) for prompts in classes.values()),
        "guess_object": sum(max(o.values()) for o in objects) / total,
        "guess_prompt": len(classes) / total,
    }


def sharing(answers: Mapping[Prompt, Any]) -> float:
    """Return the share of pairs of different prompts in one relation that form a group."""
    taxonomy, grouped, pairs = Taxonomy.load(), 0, 0
    for relation in Relation:
        said = Counter(answers[prompt] for prompt in answers if prompt[1] is relation)
        total = sum(said.values())
        pairs += total * (total - 1) // 2
        said.pop(None, 0)
        grouped += sum(count * (count - 1) // 2 for count in said.values())
        for one, other in combinations(said, 2):
            if distance(one, other, taxonomy) <= MAX_DISTANCE:
                grouped += said[one] * said[other]
    return grouped / pairs


def demo_groups(policy: Policy, minimum: int) -> list[int]:
    """Return the sizes of the groups of the demo's prompts, the largest first."""
    taxonomy = Taxonomy.load()
    signatures = {
        str(number): disclose(parse(prompt, taxonomy), policy, taxonomy, minimum)
        for number, (_, prompt) in enumerate(CAST)
    }
    return sorted((len(found.members) for found in group(signatures, taxonomy)), reverse=True)


def measured(prompts: Mapping[Prompt, Any]) -> list[dict[str, Any]]:
    """Return one row for each policy and m."""
    taxonomy = Taxonomy.load()
    answers = {}
    for policy in POLICIES:
        for minimum in range(1, LARGEST + 1):
            answers[policy, minimum] = {
                prompt: disclose(parsed, policy, taxonomy, minimum) for prompt, parsed in prompts.items()
            }
        print(f"asked under {policy.value}, m = 1 to {LARGEST}", flush=True)
    rows = []
    for policy, minimum in product(POLICIES, MINIMA):
        said = answers[policy, minimum]
        questions = [
            answers[asked, larger]
            for asked in POLICIES[POLICIES.index(policy) :]
            for larger in range(minimum, LARGEST + 1)
        ]
        together = {prompt: tuple(answer[prompt] for answer in questions) for prompt in prompts}
        rows.append(
            {
                "policy": policy.value,
                "min_public_prompts": minimum,
                "signatures": len(set(said.values()) - {None}),
                "disclosed": sum(signature is not None for signature in said.values()) / len(said),
                **anonymity(said),
                "asked_repeatedly": anonymity(together),
                "sharing_pairs": sharing(said),
                "demo_groups": demo_groups(policy, minimum),
            }
        )
    return rows


def main() -> None:
    """Measure, print a table and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="write the record to this file, as JSON")
    parser.add_argument("--code", default="", help="name of the measured code, for the record")
    arguments = parser.parse_args()
    prompts = public_prompts()
    rows = measured(prompts)
    record = {
        "code": arguments.code,
        "prompts": len(prompts),
        "exhaustive": True,
        "chance": {"object": 1 / len(drawn_nouns(Role.OBJECT)), "prompt": 1 / len(prompts)},
        "rows": rows,
    }
    print("policy   m  identified: object prompt  asked again  smallest  guess object  different  sharing")
    for row in rows:
        print(
            f"{row['policy']:<8}{row['min_public_prompts']:>2}  {row['identified_object']:>18.1%}"
            f"{row['identified_prompt']:>7.1%}  {row['asked_repeatedly']['identified_object']:>11.1%}"
            f"  {row['smallest_class_objects']:>8}  {row['guess_object']:>12.1%}  {row['signatures']:>10}"
            f"  {row['sharing_pairs']:>7.2%}  demo {row['demo_groups']}"
        )
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
