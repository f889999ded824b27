import time

import numpy as np
import pytest
from PIL import Image

from fedaigc.data.scene_words import OBJECTS, PLACES, RELATIONS, held_out
from fedaigc.data.scenes import (
    Scene,
    combinations,
    draw_scenes,
    held_out_combinations,
    render,
    scenes_dataset,
)
from fedaigc.data.sprites import HELD_OUT_STYLES, SPRITE_PX, STYLES, TRAINED_STYLES, sprites
from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng


def test_scenes_cover_the_prompts_of_the_paper() -> None:
    assert {"apple", "lemon", "bird", "dog", "cup", "tree", "man"} <= set(OBJECTS)
    assert {"table", "desk", "bed", "book", "road", "river"} <= set(PLACES)
    assert len(OBJECTS) >= 24
    assert len(PLACES) >= 8
    assert len(RELATIONS) >= 3
    assert len(STYLES) >= 6
    assert len(HELD_OUT_STYLES) == 2
    assert not set(HELD_OUT_STYLES) & set(TRAINED_STYLES)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_every_object_differently(style: str) -> None:
    drawn = [np.asarray(image) for image in sprites(style).values()]
    assert all(pixels.shape == (SPRITE_PX, SPRITE_PX, 4) for pixels in drawn)
    assert all(0.05 < (pixels[..., 3] > 128).mean() < 0.98 for pixels in drawn)
    assert len({pixels.tobytes() for pixels in drawn}) == len(OBJECTS)


def test_rendering_repeats_and_depends_on_the_seed_and_every_word() -> None:
    scene = Scene("apple", "on", "table", "noto")
    first = render(scene, numpy_rng(0, "a")).tobytes()
    assert render(scene, numpy_rng(0, "a")).tobytes() == first
    assert render(scene, numpy_rng(1, "a")).tobytes() != first
    for other in (
        Scene("lemon", "on", "table", "noto"),
        Scene("apple", "near", "table", "noto"),
        Scene("apple", "on", "bed", "noto"),
        Scene("apple", "on", "table", "flat"),
    ):
        assert render(other, numpy_rng(0, "a")).tobytes() != first


def test_scene_number_i_does_not_depend_on_how_many_are_drawn() -> None:
    few = [image.tobytes() for _, image in draw_scenes(3, seed=5)]
    many = [image.tobytes() for _, image in draw_scenes(6, seed=5)]
    assert many[:3] == few


def test_held_out_pairs_are_few_spread_and_never_drawn_by_default() -> None:
    pairs = {(thing, place) for thing in OBJECTS for place in PLACES if held_out(thing, place)}
    assert len(pairs) == len(OBJECTS) * len(PLACES) // 8
    assert {thing for thing, _ in pairs} == set(OBJECTS)
    assert {place for _, place in pairs} == set(PLACES)
    drawn = {(scene.object, scene.place) for scene, _ in draw_scenes(400, seed=0)}
    assert not drawn & pairs
    kept = combinations(include_held_out=False)
    assert len(kept) + len(held_out_combinations()) == len(OBJECTS) * len(RELATIONS) * len(PLACES)


def test_the_data_set_has_the_promised_columns_and_pictures() -> None:
    rows = scenes_dataset(5, seed=3, styles=("twemoji",))
    assert rows.column_names == ["image", "caption", "object", "relation", "place", "style"]
    row = rows[0]
    assert isinstance(row["image"], Image.Image)
    assert row["image"].size == (64, 64)
    assert row["style"] == "twemoji"
    assert row["object"] in row["caption"]
    assert row["place"] in row["caption"]
    assert row["relation"] in row["caption"]


def test_an_unknown_word_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'zebra'.*apple"):
        render(Scene("zebra", "on", "table", "noto"), numpy_rng(0))


@pytest.mark.slow
def test_rendering_speed() -> None:
    """500 scenes per second on two cores correspond to 250 on one."""
    list(draw_scenes(50, seed=0))
    start = time.perf_counter()
    list(draw_scenes(500, seed=1))
    assert 500 / (time.perf_counter() - start) > 250
