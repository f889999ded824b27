"""The figures of docs/how-to/peers.md and cluster.md: seconds until others go on when a device is killed."""

from experiments.pages.markdown import markdown
from experiments.pages.records import record
from experiments.pages.registry import table

_MESSAGES = {
    '["match"': "its answer",
    '["agreed"': "its agreement",
    '["received"': "its receipt",
    '["offered"': "its offer",
    '["commit"': "its commit",
    '["decided"': "its word that it has the packet",
    "FAGS": "its packet",
}


@table
def killed(topology: str) -> str:
    """Seconds until the other devices begin to draw, by whom is killed and before what."""
    rows = []
    for case in record(f"killed/{topology}")["cases"]:
        what = _MESSAGES[case["before"]]
        if case["nth"] > 1:
            what = f"its packet to the {('second', 'third')[case['nth'] - 2]} device"
        elif topology == "cluster" and case["before"] == "FAGS":
            what = "its packet to the first device"
        who = "the executor" if case["killed"] == case["executor"] else "another one"
        if topology == "pair":
            who += ", which answers" if case["killed"] else ", which calls"
        digits = 2 if topology == "pair" else 1
        seconds = case["seconds"]
        # of the devices that were left, in all repetitions
        left = len(seconds) * (1 if topology == "pair" else 3)
        rows.append(
            [
                who,
                what,
                f"{min(seconds):.{digits}f} to {max(seconds):.{digits}f}",
                f"{case['shared']} of {left}",
            ]
        )
    return markdown(["killed", "before it sends", "seconds", "prompts of the others that still shared"], rows)
