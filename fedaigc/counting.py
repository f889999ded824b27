"""Numbers of things in messages, with nouns and verbs that agree."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s unless the number is 1: "1 round", "2 rounds", "0 rounds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def were(number: int) -> str:
    """Return the verb of a number of things: "was" of 1, else "were"."""
    return "was" if number == 1 else "were"
