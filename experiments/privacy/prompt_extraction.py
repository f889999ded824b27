"""Test whether a hostile server can infer a private prompt from a device's replies; prints JSON.

    python -m experiments.privacy.prompt_extraction --output FILE.json
    python -m experiments.privacy.prompt_extraction --time --output FILE.json
    python -m experiments.privacy.prompt_extraction --deployment --output FILE.json
    PYTHONSAFEPATH=1 PYTHONPATH=OLD:. python -m experiments.privacy.prompt_extraction --before

The server knows the base model, each prompt's signature, and 16,560 candidates (`extraction.candidates`).
Without further arguments, the command searches for orders whose replies differ between prompts, and then extracts 25
prompts with the best order. --time tests whether reply times differ. --deployment runs the extraction over a server
with TLS and keys, a SuperNode, its relay and an agent, as processes. --before runs the bisection by overflow against
the code of commit b8a6c4d, of which OLD is a checkout; with --deployment, it also runs over processes.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from fedaigc.errors import UserError


def main() -> None:
    """Run the attack that the arguments select."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", action="store_true", help="attack the code of b8a6c4d")
    parser.add_argument("--deployment", action="store_true", help="attack a deployment of separate processes")
    parser.add_argument("--time", action="store_true", help="test reply times")
    parser.add_argument("--prompts", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=150, help="number of random orders in the search")
    parser.add_argument(
        "--replies", type=int, default=1000, help="number of replies of --time, for both prompts in total"
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        result = _run(arguments, Path(folder))
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


def _run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    # each attack imports the modules of its version of the code
    if arguments.time:
        from experiments.privacy.extraction.timing import time_test

        return time_test(folder, arguments.replies, arguments.seed)
    if arguments.deployment:
        if arguments.before:
            _check_code_before()
        from experiments.privacy.extraction.deployed import over_deployment

        return over_deployment(folder, arguments.prompts, arguments.seed, before=arguments.before)
    if arguments.before:
        _check_code_before()
        from experiments.privacy.extraction.before import in_process

        return in_process(folder, arguments.prompts, arguments.seed)
    from experiments.privacy.extraction.after import search_and_extract

    return search_and_extract(folder, arguments.prompts, arguments.seed, arguments.rounds)


def _check_code_before() -> None:
    """Raise UserError unless the imported library is the code of commit b8a6c4d."""
    import fedaigc
    from fedaigc.federation.wire import messages

    if hasattr(messages, "PLAN"):
        raise UserError(
            f"--before attacks the code of b8a6c4d, but {fedaigc.__file__} is imported: set PYTHONPATH as above"
        )


if __name__ == "__main__":
    main()
