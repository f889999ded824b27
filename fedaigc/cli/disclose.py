"""What the server would see of a prompt, what was disclosed, and the budget of it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fedaigc.cli.options import (
    HomeFolder,
    MinPublicPrompts,
    NewHomeFolder,
    PolicyOption,
    existing_home,
    number,
)
from fedaigc.semantics.policy import Policy


def disclose(
    prompts: Annotated[list[str], typer.Argument(help="Prompts, each in quotes.")],
    policy: PolicyOption = Policy.KIND,
    min_public_prompts: MinPublicPrompts = 3,
    home: Annotated[
        Path | None,
        typer.Option(
            help="A device's home: also show what its budget leaves, and what it disclosed already."
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the signature of each prompt as a line of JSON, `null` if there is none."
        ),
    ] = False,
) -> None:
    """Show what the server would see of prompts, by concepts, and why one cannot share steps. Nothing is sent.

    For runs that share by an atlas, `fedaigc atlas where` shows it.
    """
    from fedaigc.device.home.budget import Price
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.ledger_report import ledger_report
    from fedaigc.device.home.prompts import PromptQueue
    from fedaigc.semantics.concepts.taxonomy import Taxonomy
    from fedaigc.semantics.signature import signature_bits
    from fedaigc.semantics.wording import explain
    from fedaigc.validation import checked_prompt

    taxonomy = Taxonomy.load()
    queue = None
    if home is not None:
        existing_home(home)
        queue = PromptQueue(Home.open(home))
    for prompt in [checked_prompt(text) for text in prompts]:
        found = explain(prompt, policy, taxonomy, min_public_prompts)
        if json:
            typer.echo("null" if found.signature is None else found.signature.to_json())
            continue
        typer.echo(f"“{prompt}”\n  the server would see: {found.seen}")
        if found.reason:
            typer.echo(f"  because {found.reason}\n  write instead: {found.instead}")
            typer.echo(
                "  or share it by an atlas, in any words: `fedaigc atlas where` shows what is disclosed then"
            )
        if found.signature is None:
            continue
        bits = signature_bits(found.signature, min_public_prompts, taxonomy)
        counts = f"  this counts at most {bits:.1f} bits"
        if queue is not None:
            told = ledger_report(queue)
            if not queue.ledger.tells_more(prompt, found.signature.to_json()):
                counts = "  this counts nothing: it was disclosed of this prompt before"
            elif not told.budget.allows(told.spent, Price(bits)):
                counts += ", which the budget does not leave: nothing is sent, and the prompt runs alone"
        typer.echo(counts)
    if queue is not None and not json:
        typer.echo(ledger_report(queue).words)
    if policy is Policy.OPEN:
        typer.echo(
            "warning: under this policy, a group's shared steps may run on this prompt itself, and the packet "
            "then reveals it to the other members of the group",
            err=True,
        )


def disclosures(home: HomeFolder) -> None:
    """List each new disclosure of a prompt and each equality test, with time (UTC) and task; then what all count."""
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.ledger_report import ledger_report
    from fedaigc.device.home.prompts import PromptQueue
    from fedaigc.semantics.disclosed import in_words

    existing_home(home)
    queue = PromptQueue(Home.open(home))
    said = [
        (entry.time, entry.task_id, entry.policy, in_words(entry.signature))
        for entry in queue.disclosures.entries()
    ]
    said += [
        (entry.time, entry.task_id, "equal?", f"{entry.said}, at most {entry.bits:.1f} bits")
        for entry in queue.ledger.entries()
        if entry.kind == "equality"
    ]
    for told, task_id, policy, words in sorted(said, key=lambda each: each[0]):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(told))
        typer.echo(f"{when}  {task_id}  {policy:<7}  {words}")
    report = ledger_report(queue)
    if report.days:
        typer.echo("\nday (UTC)   disclosed   new  nodes    bits  epsilon  without noise")
        for day, sums in [*report.days.items(), ("in all", report.total)]:
            typer.echo(
                f"{day:<10}  {sums.disclosures:>9}  {sums.new:>4}  {sums.nodes:>5}  {sums.bits:>6.1f}  "
                f"{sums.epsilon:>7g}  {sums.exact:>13}"
            )
    if report.earlier:
        typer.echo(f"and {report.earlier} by an earlier version, which did not count bits")
    typer.echo(report.words)
    if queue.ledger.damaged():
        typer.echo(
            f"warning: {queue.ledger.path} is damaged, and nothing new is disclosed: restore it from a copy, or remove "
            "it",
            err=True,
        )


def budget(
    home: NewHomeFolder,
    bits_a_day: Annotated[
        float | None,
        typer.Option(
            callback=number, min=0, help="Bits that prompts may disclose within 24 hours; inf: any."
        ),
    ] = None,
    epsilon_a_day: Annotated[
        float | None,
        typer.Option(
            callback=number,
            min=0,
            help="Sum of epsilon within 24 hours; then only nodes with noise are disclosed. inf: any.",
        ),
    ] = None,
    node_epsilon: Annotated[
        float | None,
        typer.Option(
            callback=number,
            min=0.01,
            help="Largest epsilon of a node: at least this noise. inf: as the server asks.",
        ),
    ] = None,
) -> None:
    """Show or set how much the prompts of a home may disclose; they run alone once it is used up."""
    from dataclasses import replace

    from fedaigc.device.home.budget import home_budget, set_home_budget
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.ledger_report import ledger_report
    from fedaigc.device.home.prompts import PromptQueue

    asked = {"bits_a_day": bits_a_day, "epsilon_a_day": epsilon_a_day, "node_epsilon": node_epsilon}
    changes = {name: value for name, value in asked.items() if value is not None}
    opened = Home.open(home)
    if changes:
        with opened.changing("budget"):
            set_home_budget(opened, replace(home_budget(opened), **changes))
    typer.echo(ledger_report(PromptQueue(opened)).words)
