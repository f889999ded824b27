"""The encoded pictures of a home: cropped and not squashed, with all captions, and never enlarged silently."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fedaigc.data.pictures.reading import Reading
from fedaigc.device.add_pictures import add_pictures
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.device.training.encoded_cache import encoded_images
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.data.pictures.made import photo

CAT, DOG, BUS = "a cat on a sofa", "a dog near a river", "a bus on a road"


@pytest.fixture(scope="module")
def small(small_model: Path) -> Any:
    return load_pipeline(str(small_model))


def test_several_captions_are_drawn_from_by_seed(small: Any, tmp_path: Path) -> None:
    home = Home.open(tmp_path, 0)
    store = ImageStore(home)
    rows = [{"image": photo(32, 32), "caption": [CAT, DOG]}, {"image": photo(32, 40), "caption": BUS}]
    add_pictures(store, rows, Reading())
    for _ in range(2):  # computed, then from the cache
        data = encoded_images(store, small, "0" * 64, 32, 32)
        assert len(data) == 2
        single = encode_images(small, [photo(32, 32)] * 3, [CAT, DOG, BUS], height=32, width=32)
        assert torch.allclose(data.text["prompt_embeds"], single.text["prompt_embeds"], atol=1e-6)
    both = torch.zeros(400, dtype=torch.long)
    drawn = data.text_rows(both, rng(1, "captions"))
    assert set(drawn.tolist()) == {0, 1}
    assert 150 < int(drawn.sum()) < 250
    assert torch.equal(drawn, data.text_rows(both, rng(1, "captions")))
    assert not torch.equal(drawn, data.text_rows(both, rng(2, "captions")))
    assert data.rows(torch.tensor([1])).text_rows(torch.tensor([0, 0]), rng(1, "captions")).tolist() == [2, 2]


def test_single_captions_draw_nothing(small: Any) -> None:
    data = encode_images(small, [photo(32, 32)] * 2, [CAT, (DOG,)], height=32, width=32)
    generator = rng(0, "captions")
    before = generator.get_state()
    rows = torch.tensor([1, 0, 1])
    assert data.choices is None
    assert data.text_rows(rows, generator) is rows
    assert generator.get_state().equal(before)
    assert "choices" not in data.tensors()
    parts = [data.rows(torch.tensor([place])) for place in range(2)]
    assert EncodedImages.joined(parts).latents.equal(data.latents)


def test_pictures_are_cropped_and_put_on_a_background(small: Any) -> None:
    def latents(image: Image.Image) -> torch.Tensor:
        return encode_images(small, [image], [CAT], height=32, width=32).latents

    wide = photo(160, 40)
    assert latents(wide).equal(latents(wide.crop((60, 0, 100, 40))))
    clear = photo(32, 32)
    clear.putalpha(Image.new("L", (32, 32), 0))
    assert latents(clear).equal(latents(Image.new("RGB", (32, 32), "white")))


def test_pictures_that_were_made_smaller_are_not_enlarged(small: Any, tmp_path: Path) -> None:
    home = Home.open(tmp_path, 0)
    store = ImageStore(home)
    add_pictures(store, [{"image": photo(64, 48), "caption": CAT}], Reading(size=16))
    with pytest.raises(UserError, match=r"1 of 1 picture .* training at 32 x 32 would enlarge them"):
        encoded_images(store, small, "0" * 64, 32, 32)
    assert not list(home.cache.iterdir())
    assert len(encoded_images(store, small, "0" * 64, 16, 16)) == 1


def test_buckets_keep_what_cropping_cuts_off(small: Any, tmp_path: Path) -> None:
    home = Home.open(tmp_path, 0)
    store = ImageStore(home)
    rows: list[dict[str, Any]] = [
        {"image": photo(*size), "caption": CAT} for size in ((64, 64), (90, 60), (60, 90), (96, 64))
    ]
    add_pictures(store, rows, Reading())
    for _ in range(2):  # computed, then from the cache
        data = encoded_images(store, small, "0" * 64, 64, 64, buckets=True)
        assert data.sizes is not None
        high, wide = data.sizes[1].tolist()
        assert wide > high
        assert data.sizes.tolist() == [[32, 32], [high, wide], [wide, high], [high, wide]]
        alone = encode_images(
            small, [rows[1]["image"].resize((2 * wide, 2 * high), 1)], [CAT], height=2 * high, width=2 * wide
        )
        assert data.latents_of(torch.tensor([1])).shape == alone.latents.shape
        assert torch.allclose(data.latents_of(torch.tensor([1, 3]))[0], data.latents_of(torch.tensor([1]))[0])
    assert len(list(home.cache.iterdir())) == 1
    # without the option, the cropped set takes its place
    assert encoded_images(store, small, "0" * 64, 64, 64).sizes is None
    # pictures of one shape are one bucket, which is drawn from like a cropped set
    same = encode_images(small, [photo(96, 64)] * 3, [CAT] * 3, height=64, width=64, aspect_buckets=True)
    assert same.sizes is None
    assert same.latents.shape[-1] > same.latents.shape[-2]


def test_a_batch_has_one_size_and_draws_every_picture_alike(small: Any) -> None:
    pictures = [photo(64, 64), photo(96, 64), photo(96, 64), photo(64, 96)]
    data = encode_images(small, pictures, [CAT] * 4, height=64, width=64, aspect_buckets=True)
    assert data.sizes is not None
    generator, counts = rng(0, "batches"), torch.zeros(4)
    for _ in range(2000):
        rows = data.drawn_batch(4, generator)
        assert len(data.sizes[rows].unique(dim=0)) == 1
        assert data.latents_of(rows).shape[0] == 4
        counts += torch.bincount(rows, minlength=4)
    assert ((counts / counts.sum() - 0.25).abs() < 0.03).all(), counts
    every = torch.cat(list(data.batches(2, times=3)))
    assert torch.bincount(every).tolist() == [3, 3, 3, 3]
    for rows in data.batches(2, times=3):
        assert len(data.sizes[rows].unique(dim=0)) == 1
    part = data.rows(torch.tensor([3, 1]))
    assert part.latents_of(torch.tensor([0])).equal(data.latents_of(torch.tensor([3])))
