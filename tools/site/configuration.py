"""The page of all keys of all configuration files, from the models that read them."""

from collections.abc import Iterator

from fedaigc.device.limits import OwnerLimits
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.settings import Model, Setting, model_of, toml
from fedaigc.study.design.config import StudyConfig
from fedaigc.wireless.profiles import DeviceProfile

_HEAD = """# Configuration

All keys, from the models that read them. An unknown key is refused, and the error names the nearest known one.
*None* stands for a key that is not set. Relative paths count from the folder of the file.
"""
# title, introduction, model; sections that a later file shares with an earlier one are linked
_FILES: tuple[tuple[str, str, type], ...] = (
    (
        "Run",
        "The TOML file of `fedaigc simulate` and `fedaigc server run`; `fedaigc config` prints one with all keys. "
        "`fa.simulate` takes the same keys: sections as dicts.",
        FederationConfig,
    ),
    (
        "Study",
        "The TOML file of `fedaigc compare`; `fa.compare` takes the same keys.",
        StudyConfig,
    ),
    (
        "Limits of a device",
        "What its owner permits to a server: options of "
        "[`fedaigc device start`](command-line.md#fedaigc-device-start), where `max_denoising_steps`, "
        "`max_image_side` and `max_guidance_scale` are `--max-steps`, `--max-side` and `--max-guidance`.",
        OwnerLimits,
    ),
    (
        "Device profile",
        "The file `profile.json` in a device's home, by which its page counts energy. `fedaigc profile --output FILE` "
        "measures one.",
        DeviceProfile,
    ),
)


def configuration_page() -> str:
    """Return the page: a table per section, with every key, its values, its default and its description."""
    parts, known = [_HEAD], dict[str, str]()
    for title, about, kind in _FILES:
        parts += [f"## {title}\n", f"{about}\n", *_tables(model_of(kind), title.lower(), "", known)]
    return "\n".join(parts)


def _tables(model: Model, file: str, path: str, known: dict[str, str]) -> Iterator[str]:
    values = [setting for setting in model.settings if setting.model is None]
    if values:
        yield '<div class="settings" markdown="1">\n'
        yield "| key | values | default | |"
        yield "| --- | --- | --- | --- |"
        for setting in values:
            yield _row(setting, f"{path}{setting.name}", f"{file}-{path}{setting.name}")
        yield "\n</div>\n"
    for setting in model.settings:
        if setting.model is None:
            continue
        inner = f"{path}{setting.name}"
        header = {"list": f"[[{inner}]]", "table": f"[{inner}.NAME]"}.get(setting.repeated, f"[{inner}]")
        anchor = f"{file}-{inner}".replace(" ", "-")
        yield f"### `{header}` {{ #{anchor} }}\n"
        own = setting.about if setting.about.rstrip(".") not in setting.model.about else ""
        yield from (f"{_escaped(text)}\n" for text in (own, setting.model.about) if text)
        # the same section in two files is described once
        shown = known.setdefault(str(setting.model.schema), anchor)
        if shown != anchor:
            yield f"The keys of [`{header}`](#{shown}) of a {shown.partition('-')[0]}.\n"
        else:
            yield from _tables(setting.model, file, f"{inner}.", known)


def _row(setting: Setting, key: str, anchor: str) -> str:
    default = (
        "required"
        if setting.required
        else "None"
        if setting.default is None
        else f"`{toml(setting.default)}`"
    )
    anchor = anchor.replace(" ", "-")
    cells = (f'<span id="{anchor}">`{key}`</span>', _escaped(setting.kind), default, _escaped(setting.about))
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    for sign in "\\|*_<":
        text = text.replace(sign, f"\\{sign}") if sign != "<" else text.replace("<", "&lt;")
    return text
