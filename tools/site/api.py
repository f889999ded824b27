"""The page of the public names, in the groups of the docstring of `fedaigc`."""

import re

import fedaigc

_HEAD = """# API

Everything here is reached by one import, and nothing is loaded before it is used:

```python
import fedaigc as fa
```

No deeper import is part of the public interface.
"""


def groups() -> dict[str, list[str]]:
    """Return the public names by group; names that the docstring does not list come last."""
    text = re.sub(r"\n {5,}", " ", fedaigc.__doc__ or "")
    found = {
        group: re.findall(r"\w+", names)
        for group, names in re.findall(r"^([A-Z][\w ]+): +(\S.*)$", text, flags=re.MULTILINE)
    }
    found = {group: [name for name in names if name in fedaigc.__all__] for group, names in found.items()}
    listed = {name for names in found.values() for name in names}
    others = [name for name in fedaigc.__all__ if name not in listed and name != "__version__"]
    return {group: names for group, names in {**found, "Others": others}.items() if names}


def api_page() -> str:
    """Return the page; mkdocstrings fills in each name's docstring."""
    parts = [_HEAD]
    for group, names in groups().items():
        parts += [f"## {group}\n", *(f"::: fedaigc.{name}\n" for name in names)]
    parts += ["## Version\n", "`fedaigc.__version__` is the version of the installed package.\n"]
    return "\n".join(parts)
