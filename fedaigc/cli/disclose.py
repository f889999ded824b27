"""`fedaigc disclose`: what the server would see of a prompt."""

from typing import Annotated

import typer

from fedaigc.cli.options import MinPublicPrompts, PolicyOption
from fedaigc.semantics.policy import Policy


def disclose(
    prompts: Annotated[list[str], typer.Argument(help="Prompts, each in quotes.")],
    policy: PolicyOption = Policy.KIND,
    min_public_prompts: MinPublicPrompts = 3,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the signature of each prompt as a line of JSON, `null` if there is none."
        ),
    ] = False,
) -> None:
    """Show what the server would see of prompts, and why one cannot share steps. Nothing is sent."""
    from fedaigc.semantics.concepts.taxonomy import Taxonomy
    from fedaigc.semantics.wording import explain
    from fedaigc.validation import checked_prompt

    taxonomy = Taxonomy.load()
    for prompt in [checked_prompt(text) for text in prompts]:
        found = explain(prompt, policy, taxonomy, min_public_prompts)
        if json:
            typer.echo("null" if found.signature is None else found.signature.to_json())
            continue
        typer.echo(f"“{prompt}”\n  the server would see: {found.seen}")
        if found.reason:
            typer.echo(f"  because {found.reason}\n  write instead: {found.instead}")
    if policy is Policy.OPEN:
        typer.echo(
            "warning: under this policy, a group's shared steps may run on this prompt itself, and the packet "
            "then reveals it to the other members of the group",
            err=True,
        )
