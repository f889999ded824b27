"""The keys of a configuration model, with what their docstrings say: for `fedaigc config` and the documentation.

A model documents its keys in the section "Attributes:" of its docstring, or of those of its base classes, and nowhere
else.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter

Schema = Mapping[str, Any]
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}


@dataclass(frozen=True)
class Setting:
    """A key of a configuration.

    Attributes:
        name: The key.
        about: Its description.
        required: Whether it must be given.
        default: Its default; None if it has none.
        schema: Its JSON schema, with references resolved and without the alternative "null".
        optional: Whether it may be left unset, in which case its value is None.
        model: The keys of the section that it opens; None if it holds a value.
        repeated: "list" or "table" if it holds many such sections, else "".
    """

    name: str
    about: str
    required: bool
    default: Any
    schema: Schema
    optional: bool
    model: "Model | None"
    repeated: str

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that it takes, if they are few."""
        return tuple(self.schema.get("enum", ()))

    @property
    def kind(self) -> str:
        """The values that it takes, in words."""
        return _in_words(self.schema)


@dataclass(frozen=True)
class Model:
    """A configuration, or a section of one.

    Attributes:
        schema: Its JSON schema.
        whole: The schema that its references point into.
        attributes: The descriptions of the keys of each class, by its name.
    """

    schema: Schema
    whole: Schema
    attributes: Mapping[str, Mapping[str, str]]

    @property
    def about(self) -> str:
        """Its docstring up to the first section, as paragraphs."""
        return _sections(self.schema.get("description", ""))[0]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Its keys, in their order."""
        return tuple(self._settings())

    def _settings(self) -> Iterator[Setting]:
        attributes = self.attributes.get(self.schema.get("title", ""), {})
        for name, given in self.schema.get("properties", {}).items():
            schema, optional = self._resolved(given)
            inner, repeated = self._inner(schema)
            yield Setting(
                name=name,
                about=attributes.get(name, ""),
                required=name in self.schema.get("required", ()),
                default=given.get("default"),
                schema=schema,
                optional=optional,
                model=None if inner is None else Model(inner, self.whole, self.attributes),
                repeated=repeated,
            )

    def _inner(self, schema: Schema) -> tuple[Schema | None, str]:
        """Return the schema of the section that a key opens, if any, and whether it holds many of them."""
        if "properties" in schema:
            return schema, ""
        many = {"list": schema.get("items"), "table": schema.get("additionalProperties")}
        many["table"] = next(iter(schema.get("patternProperties", {}).values()), many["table"])
        for repeated, each in many.items():
            found = self._resolved(each)[0] if isinstance(each, Mapping) else {}
            if "properties" in found:
                return found, repeated
        return None, ""

    def _resolved(self, schema: Schema) -> tuple[Schema, bool]:
        """Follow references, and skip the alternative null; return whether there was one."""
        optional = False
        while True:
            if "$ref" in schema:
                schema = self.whole["$defs"][schema["$ref"].rpartition("/")[2]]
                continue
            choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
            if len(choices) != 1:
                return schema, optional or len(choices) < len(schema.get("anyOf", ()))
            schema, optional = choices[0], True


def model_of(kind: type[Any]) -> Model:
    """Return the keys of a pydantic model or of a dataclass."""
    schema = TypeAdapter(kind).json_schema()
    # a dataclass without a schema of its own lies behind a reference
    while "$ref" in schema:
        schema = {**schema["$defs"][schema["$ref"].rpartition("/")[2]], "$defs": schema["$defs"]}
    attributes: dict[str, dict[str, str]] = {}
    _collect(kind, attributes)
    return Model({"description": inspect.getdoc(kind) or "", **schema}, schema, attributes)


def _collect(annotation: Any, found: dict[str, dict[str, str]]) -> None:
    """Add the descriptions of the keys of all models in an annotation, those of their base classes included."""
    for inner in get_args(annotation):
        _collect(inner, found)
    if not isinstance(annotation, type) or annotation.__name__ in found:
        return
    if not (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return
    texts = [_sections(inspect.cleandoc(each.__doc__ or ""))[1] for each in reversed(annotation.__mro__)]
    found[annotation.__name__] = {name: about for text in texts for name, about in _attributes(text).items()}
    for inner in get_type_hints(annotation).values():
        _collect(inner, found)


def toml(value: Any) -> str:
    """Return a value of a JSON schema as TOML writes it."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _in_words(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(map(toml, schema["enum"]))
    if "const" in schema:
        return toml(schema["const"])
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if choices:
        return " or ".join(_in_words(choice) for choice in choices if choice.get("type") != "null")
    kind = schema.get("type")
    if kind == "array":
        one = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of: {_in_words(one)}"
    if kind == "object":
        return "table"
    if schema.get("pattern"):
        return f"text that matches {schema['pattern']}"
    bounds = [f"{words} {schema[bound]:g}" for bound, words in _BOUNDS.items() if bound in schema]
    return ", ".join([_NAMES.get(str(kind), "any value"), *bounds])


def _sections(docstring: str) -> tuple[str, str]:
    """Return the text of a docstring before its first section, and the body of the section "Attributes:"."""
    parts = re.split(r"^([A-Z]\w+):\n", f"{docstring}\n", flags=re.MULTILINE)
    bodies = dict(zip(parts[1::2], parts[2::2], strict=True))
    return parts[0].strip(), bodies.get("Attributes", "")


def _attributes(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", body, flags=re.MULTILINE):
        found |= dict.fromkeys(re.split(r", *", names), " ".join(text.split()))
    return found
