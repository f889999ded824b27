"""The search for canaries finds each of them in each form, and nothing in content without canaries."""

import base64
import gzip
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.deployment.canaries import Canaries, Found, Search
from tools.deployment.canary_device import FORMS, Secrets

WORD = "zorblatique"
PROMPT = f"a {WORD} apple on a table"
TOKENS = (320, 25111, 40123, 2790, 3055, 525, 320, 2175)


def pattern(seed: int, size: int = 32) -> Image.Image:
    """Return colour patches that survive JPEG, but are too small to resemble the steps and slopes of weights."""
    patches = np.random.default_rng(seed).integers(0, 256, (size // 2, size // 2, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((size, size), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    drawn = np.random.default_rng(1)
    private = Secrets.__new__(Secrets)
    private.prompt, private.picture, private.token_ids = PROMPT, pattern(1), list(TOKENS)
    private.embedding = drawn.normal(size=(77, 16)).astype(np.float32)
    private.latents = drawn.normal(size=(4, 16, 16)).astype(np.float32)
    private.pixels = np.asarray(private.picture)
    return private


@pytest.fixture
def search(secrets: Secrets) -> Search:
    return Search(
        Canaries(
            frozenset({WORD}),
            (TOKENS,),
            frozenset(TOKENS) - {25111, 40123, 2790},
            (secrets.embedding,),
            (secrets.pixels,),
            (secrets.latents,),
        )
    )


def forms(found: list[Found]) -> set[str]:
    return {each.form for each in found}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_found_under_its_name_within_other_bytes(
    form: str, secrets: Secrets, search: Search
) -> None:
    noise = np.random.default_rng(2).bytes(997)
    assert forms(search.raw(noise + FORMS[form](secrets) + noise, "x")) == {form}


def test_what_holds_no_canary_is_clean(search: Search) -> None:
    noise = np.random.default_rng(3)
    weights = noise.normal(size=20_000).astype(np.float32)
    assert search.values({"loss": 0.25, "weights": weights, "public": "a fruit on a table"}, "x") == []
    assert search.raw(noise.bytes(100_000), "x") == []


def test_a_form_within_a_form_goes_by_the_outer_one(search: Search) -> None:
    assert forms(search.raw(base64.b64encode(gzip.compress(PROMPT.encode())), "x")) == {"base64"}
    assert forms(search.raw(gzip.compress(PROMPT.encode().hex().encode()), "x")) == {"gzip"}


def test_decoded_values_are_searched_where_their_bytes_tell_nothing(secrets: Secrets, search: Search) -> None:
    assert forms(search.values({"ids": list(TOKENS)}, "x")) == {"token ids"}
    assert forms(search.values({"ids": dict(zip("abcdefgh", TOKENS, strict=True))}, "x")) == {"token ids"}
    assert forms(search.values({"a": {"b": [WORD.upper()]}}, "x")) == {"plain"}
    assert forms(search.values({WORD: 1}, "x")) == {"plain"}
    weights = np.zeros(9_000)
    weights[7:1031] = 1e-2 * secrets.latents.ravel() + 3
    assert forms(search.values(weights, "x")) == {"latents"}
    for layout in (secrets.pixels.transpose(2, 0, 1), secrets.pixels.mean(axis=2)):
        assert forms(search.values(1e-3 * layout.ravel(), "x")) == {"pixels"}


def test_numbers_that_a_log_prints_are_read(secrets: Secrets, search: Search) -> None:
    assert forms(search.values(f"ids={list(TOKENS)}", "x")) == {"token ids"}
    assert forms(search.values(json.dumps(secrets.latents.round(2).tolist()), "x")) == {"latents"}


def test_another_picture_is_found_as_one_that_looks_different(secrets: Secrets, search: Search) -> None:
    (own,) = search.raw(FORMS["PNG"](secrets), "x")
    assert own.what.endswith("1.00")
    secrets_of_another = Secrets.__new__(Secrets)
    secrets_of_another.picture = pattern(9)
    (other,) = search.raw(FORMS["PNG"](secrets_of_another), "x")
    assert float(other.what.split()[-1]) < 0.5


def test_files_their_names_and_the_rows_of_databases_are_searched(tmp_path: Path, search: Search) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    assert search.files(folder, "x") == []
    (folder / "log.txt").write_text(f"12:00 asked for {list(TOKENS)}\n")
    (folder / WORD).write_bytes(b"")
    with sqlite3.connect(folder / "link.db") as database:
        database.execute("CREATE TABLE objects (key TEXT, content BLOB)")
        # longer than a page: in the file it is cut in parts
        letters = np.random.default_rng(1).integers(97, 123, 9_000, dtype=np.uint8).tobytes()
        hidden = b"." * 3_000 + gzip.compress(letters + WORD.encode())
        database.execute("INSERT INTO objects VALUES (?, ?)", ("k", hidden))
    database.close()
    found = {(each.path, each.form) for each in search.files(folder, "x")}
    assert found == {("x/log.txt", "token ids"), (f"x/{WORD} name", "plain"), ("x/link.db[0][2]", "gzip")}
