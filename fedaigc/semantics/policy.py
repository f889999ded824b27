"""How much a device discloses of a prompt, in a module that loads fast: the command line lists it."""

from enum import StrEnum


class Policy(StrEnum):
    """How much of a prompt a device discloses.

    All policies except SILENT disclose the relation. None except OPEN discloses a modifier.

    Attributes:
        OPEN: The prompt. The paper's mode, for experiments only, which must be requested by name. The shared
            steps of a group then run on one member's prompt. Its packets disclose the prompt to the other
            members as well, not only to the server.
        EXACT: Object and place by their nearest public concepts ("an apple on a table") if the minimum of
            public prompts is 1. With any other minimum the object is disclosed as under KIND.
        KIND: The place by its nearest public concept, the object by a general word ("a fruit on a table").
            The default: the place belongs to the layout, which the shared first steps fix, and the kind of
            the object is decided late.
        GENERAL: Both by general words ("a fruit on furniture").
        SILENT: Nothing. Every task runs alone.
    """

    OPEN = "open"
    EXACT = "exact"
    KIND = "kind"
    GENERAL = "general"
    SILENT = "silent"


# ordered from the least to the most disclosing policy
LEAST_FIRST = (Policy.SILENT, Policy.GENERAL, Policy.KIND, Policy.EXACT, Policy.OPEN)
