"""The figures of docs/threats.md."""

from experiments.pages.markdown import markdown, share
from experiments.pages.records import one_of, record
from experiments.pages.registry import claim, figure, table

# the columns of the page: attack as in the record, and its header
_ATTACKS = {
    "flip x10": "flip x10",
    "n_k 1e12": "n_k 1e12",
    "3e38": "3e38",
    "flip x10, n_k 1e12": "flip x10 and n_k 1e12",
    "within bounds": "1e7 pictures from hello on, flip x3",
}


def _run(name: str, rule: str, attackers: int, attack: str) -> dict[str, float]:
    # commas separate conditions, and names of rules and attacks contain some
    rows = record(f"privacy/{name}")["rows"]
    rows = [row for row in rows if row["attack"] == attack and row["rule"] == rule]
    found: dict[str, float] = one_of(rows, f"attackers={attackers}")
    return found


@table
def byzantine() -> str:
    """The effect of one hostile device on FedAvg, before and now."""
    rows = []
    for name, record_name in (("before", "byzantine_before"), ("now", "byzantine")):
        honest = _run(record_name, "fedavg", 0, "honest")
        cells = [share(honest["loss"], 3), share(honest["one_round_less"], 3)]
        for attack in _ATTACKS:
            loss = _run(record_name, "fedavg", 0, attack)["loss"]
            cells.append("run ended" if loss is None else share(loss, 3))
        rows.append([name, *cells])
    return markdown(["fedavg", "honest", "one honest round less", *_ATTACKS.values()], rows)


@figure
def byzantine_loss(name: str, rule: str, attackers: int, attack: str) -> float:
    """Loss under an attack, e.g. `byzantine_loss byzantine_before fedavg 0 "flip x10, n_k 1e12"`."""
    return _run(name, rule, attackers, attack)["loss"]


@figure
def byzantine_one_round_less(name: str, rule: str, attackers: int) -> float:
    """Loss of the honest run of a rule before its last round."""
    return _run(name, rule, attackers, "honest")["one_round_less"]


@claim
def withstands(*rules: str) -> bool:
    """Whether each RULE/ATTACKERS ends below one honest round less under the attack within the bounds."""
    found = [rule.split("/") for rule in rules]
    return all(
        _run("byzantine", rule, int(attackers), "within bounds")["loss"]
        < _run("byzantine", rule, int(attackers), "honest")["one_round_less"]
        for rule, attackers in found
    )


@claim
def worse_than_base(rule: str, attackers: int, attack: str) -> bool:
    """Whether a run under an attack ends above the untouched model, with the current code."""
    return _run("byzantine", rule, attackers, attack)["loss"] > record("privacy/byzantine")["base_loss"]


@figure
def calls(name: str) -> tuple[int, int]:
    """Number of calls of devices that failed during the attack on the door, and of all calls."""
    ways = record(f"privacy/{name}")["under"].values()
    return sum(way["failed"] for way in ways), sum(way["tries"] for way in ways)


@figure
def longest_call(name: str) -> float:
    """Longest call of a device during the attack on the door, in seconds."""
    return max(way["longest_s"] for way in record(f"privacy/{name}")["under"].values())


@figure
def longest_answer(side: str, messages: str) -> float:
    """Longest answer in seconds of a side (device, server), to mutated or honest messages."""
    key = {"mutated": "longest_s", "honest": "honest_s"}[messages]
    return max(record(f"privacy/fuzz_{side}")[key].values())


@figure
def closest_picture(attack: str, captions: str) -> float:
    """How many dB the best picture of an attack is closer to its private one than chance."""
    found = record("privacy/private_pictures")["attacks"][attack][f"{captions} captions"]
    return max(got - chance for got, chance in zip(found["psnr_db"], found["chance_db"], strict=True))


@figure
def best_attack(captions: str) -> list[float]:
    """Gain in dB, with its interval, of the best attack on private pictures."""
    attacks = record("privacy/private_pictures")["attacks"].values()
    gains = [attack[f"{captions} captions"]["gain_db"] for attack in attacks]
    best = max(gains, key=lambda gain: gain["mean"])
    return [best["mean"], best["low"], best["high"]]
