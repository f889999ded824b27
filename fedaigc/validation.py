"""Validation of what is read: user configurations, with all mistakes in one error, prompts, JSON of our own files."""

import codecs
import difflib
import functools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from fedaigc.bounds import (
    MAX_KEY_CHARACTERS,
    MAX_MISTAKE_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_TOLD_MISTAKES,
)
from fedaigc.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")
# longest first: the mark of UTF-32 begins as that of UTF-16
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_TOLD_KEYS = 4
_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)
# of difflib: a key that is nearer than this is one that was mistyped
_NEAR = 0.7
# of a message: sections that have a key; and how deep sections may lie
_TOLD_PLACES = 2
_DEEPEST = 4
# of a limit that may be absent: `inf`, as TOML has no null, stands for None
NO_LIMIT = BeforeValidator(lambda value: None if value in (math.inf, "inf") else value)


def validated(model: type[Model], values: Mapping[str, Any], what: str = "the configuration") -> Model:
    """Validate a mapping against a pydantic model.

    Args:
        model: Class to validate against.
        values: Values by key.
        what: What the values are, for the error message.

    Returns:
        The validated model.

    Raises:
        UserError: If any value is invalid. It names every wrong key, up to `MAX_TOLD_MISTAKES`, and for an
            unknown key the nearest known one, the sections that have it, or all known ones.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise _told(model, error, what) from None


def validated_json(model: type[Model], text: str, what: str = "the configuration") -> Model:
    """Validate a JSON string against a pydantic model; otherwise like `validated`."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _told(model, error, what) from None


def typed_json(kind: type[Value], text: str | bytes) -> Value:
    """Return the value of a JSON text with exactly the types of `kind`: a string is no number, nor is `true`.

    Raises:
        ValidationError: If the text is anything else; see `first_mistake`.
    """
    value: Value = _adapter(kind).validate_json(text, strict=True)
    return value


def first_mistake(error: ValidationError) -> str:
    """Return the first mistake that a validation found, as one line: the key, and what was expected."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def decoded_text(data: bytes) -> str:
    """Return the text of a file that a user wrote: UTF-8, or UTF-16 or UTF-32 with its byte order mark.

    The mark is no part of the text.

    Raises:
        ValueError: If it is in none of these.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding)
    text = data.decode("utf-8")
    if "\0" in text:
        raise ValueError("the text contains NUL characters")
    return text


def read_toml(
    path: Path,
    changes: Sequence[str],
    model: type[BaseModel],
    place: Callable[[dict[str, Any], Path], None],
) -> dict[str, Any]:
    """Read the values of a TOML file.

    Args:
        path: The file.
        changes: Values that replace those of the file, such as "rounds.count=5": a key with its sections, and
            a value as TOML writes it. A text needs no quotes, and a key that holds a text takes every value as one.
        model: The class that the values are for.
        place: Makes the relative paths among the values count from a folder: those of the file from its own
            folder, those of `changes` from the working folder.

    Raises:
        UserError: If the file does not exist, cannot be read or is not TOML, or a change is not of this form.
    """
    try:
        values = tomllib.loads(decoded_text(path.read_bytes()))
    except OSError as error:
        raise UserError(f"no configuration {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not a TOML file: {error}") from None
    except ValueError:
        raise UserError(f"{path} is not a UTF-8 text file: save it as UTF-8") from None
    place(values, path.absolute().parent)
    for change in changes:
        _apply(change, values, model)
    place(values, Path.cwd())
    return values


def _apply(change: str, values: dict[str, Any], model: type[BaseModel]) -> None:
    key, equals, text = change.partition("=")
    *sections, name = parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise UserError(f"--set {change!r}: expected KEY=VALUE, such as rounds.count=5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if not isinstance(value, str) and _holds_text(model, parts):
        value = text.strip()
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {change!r}: {section} is not a section of the file")
    values[name] = value


def checked_prompt(text: str) -> str:
    """Return `text` with each run of white space replaced by one space.

    Raises:
        UserError: If the text is empty, has more than 1,000 characters, or holds half of a surrogate pair,
            which no file can store.
    """
    # counted before stripping: ten thousand blanks are as wrong as ten thousand letters
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise UserError(
            f"the text has {len(text):,} characters: shorten it to at most {MAX_PROMPT_CHARACTERS:,}"
        )
    prompt = " ".join(text.split())
    if not prompt:
        raise UserError('the text is empty: say what to draw, e.g. "an apple on a table"')
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError("the text contains an invalid character: enter it again, as UTF-8") from None
    return prompt


def nearest(given: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or an empty string if no name is near."""
    found = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _told(model: type[BaseModel], error: ValidationError, what: str) -> UserError:
    problems = error.errors(include_url=False)
    lines = [f"  {_mistake(model, problem)}" for problem in problems[:MAX_TOLD_MISTAKES]]
    if len(problems) > len(lines):
        lines.append(f"  and {len(problems) - len(lines)} more")
    return UserError(f"{what} is wrong:\n" + "\n".join(lines))


def _mistake(model: type[BaseModel], problem: Any) -> str:
    """Describe one mistake. Given keys and values are truncated, as they may come from another machine."""
    where = ".".join(map(_part, problem["loc"])) or "configuration"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(model, problem["loc"][:-1])
        given = str(problem["loc"][-1])[:MAX_KEY_CHARACTERS]
        near = difflib.get_close_matches(given, known, n=1, cutoff=_NEAR)
        elsewhere = [] if near else _places(_schema(model), given)
        if elsewhere:
            return f"{where}: unknown key here; it is a key of {' and of '.join(elsewhere[:_TOLD_PLACES])}"
        close = near or difflib.get_close_matches(given, known, n=1)
        if close:
            return f"{where}: unknown key; the nearest known one is {close[0]!r}"
        return f"{where}: unknown key; known here are {', '.join(known)}"
    if problem["type"] in ("model_type", "model_attributes_type", "dataclass_type"):
        keys = ", ".join(_known_keys(model, problem["loc"])[:_TOLD_KEYS])
        return f"{where}: expected a section, whose keys are {keys}, ..., got {problem['input']!r:.80}"
    if problem["type"] == "value_error":
        # our own message names its subject; the input is omitted, as it may be the whole configuration
        place = f"{where}: " if problem["loc"] else ""
        return f"{place}{problem['ctx']['error']!s:.{MAX_MISTAKE_CHARACTERS}}"
    return f"{where}: {problem['msg']:.{MAX_MISTAKE_CHARACTERS}}, got {problem['input']!r:.80}"


def _part(key: int | str) -> str:
    """Return a key unchanged if it could be one of ours, else truncated and escaped."""
    text = str(key)
    return text if len(text) <= 64 and text.isascii() and text.isprintable() else f"{text!a:.80}"


@functools.lru_cache(maxsize=8)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return TypeAdapter(model).json_schema()


def _known_keys(model: type[BaseModel], section: tuple[int | str, ...]) -> list[str]:
    schema = _schema(model)
    found = _resolved(schema, schema)
    for part in section:
        found = _resolved(schema, _inside(found, part))
    return sorted(found["properties"])


def _places(schema: Mapping[str, Any], name: str) -> list[str]:
    """Return the sections that have a key of this name, such as "clients.data", in the order of the schema."""
    found: list[str] = []

    def walk(section: Mapping[str, Any], path: tuple[str, ...]) -> None:
        if path and name in section.get("properties", {}):
            found.append(".".join(path))
        for key, below in section.get("properties", {}).items():
            inside, place = _resolved(schema, below), (*path, key)
            free = [*inside.get("patternProperties", {}).values(), inside.get("additionalProperties")]
            if isinstance(free[0], Mapping):
                inside, place = _resolved(schema, free[0]), (*place, "NAME")
            if len(path) < _DEEPEST and "properties" in inside:
                walk(inside, place)

    walk(_resolved(schema, schema), ())
    return found


def _holds_text(model: type[BaseModel], key: Sequence[str]) -> bool:
    """Return whether a key exists and holds a text, and nothing else that TOML could write."""
    schema = _schema(model)
    found = _resolved(schema, schema)
    try:
        for part in key[:-1]:
            found = _resolved(schema, _inside(found, part))
        found = _inside(found, key[-1])
    except (KeyError, TypeError, AttributeError):
        return False  # an unknown key, which the validation names
    if not isinstance(found, Mapping):
        return False  # the same: a section without free keys says false there
    kinds = [_resolved(schema, kind).get("type") for kind in found.get("anyOf", [found])]
    return set(kinds) - {"null"} == {"string"}


def _inside(found: Mapping[str, Any], part: int | str) -> Mapping[str, Any]:
    """Descend one level: to an item of a list, a key of a section or a key of a table with free keys."""
    if isinstance(part, int):
        return found["items"]
    if part in found.get("properties", {}):
        return found["properties"][part]
    return next(iter(found.get("patternProperties", {}).values()), None) or found["additionalProperties"]


def _resolved(schema: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references and, for an optional section, skip the null alternative."""
    while True:
        if "$ref" in found:
            found = schema["$defs"][found["$ref"].rpartition("/")[2]]
        elif "anyOf" in found:
            found = next(choice for choice in found["anyOf"] if choice.get("type") != "null")
        else:
            return found
