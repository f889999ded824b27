from pathlib import Path

import pytest
import torch
from PIL import Image

from fedaigc.data.scenes import draw_scenes
from fedaigc.errors import UserError
from fedaigc.metrics.perceptual import ClipScore, Lpips
from tests.metrics.small_clip import save_small_clip


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [image for _, image in draw_scenes(3, seed=0)]


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real CLIP, very small and untrained, in a folder."""
    folder = tmp_path_factory.mktemp("clip")
    save_small_clip(folder)
    return folder


def test_clip_scores_equal_the_cosine_of_the_models_own_embeddings(
    small_clip: Path, scenes: list[Image.Image]
) -> None:
    from transformers import CLIPModel, CLIPProcessor

    captions = ["an apple on a table", "a dog", "a car near a river"]
    scores = ClipScore.load(small_clip).score(scenes, captions)
    clip, processor = CLIPModel.from_pretrained(small_clip), CLIPProcessor.from_pretrained(small_clip)
    for image, caption, score in zip(scenes, captions, scores, strict=True):
        inputs = processor(text=[caption], images=[image], return_tensors="pt")
        with torch.inference_mode():
            out = clip(**inputs)
        cosine = torch.cosine_similarity(out.image_embeds, out.text_embeds).item()
        assert score == pytest.approx(max(100 * cosine, 0), abs=1e-3)


def test_a_score_does_not_depend_on_the_other_pictures(small_clip: Path, scenes: list[Image.Image]) -> None:
    metric = ClipScore.load(small_clip)
    captions = ["an apple", "a dog", "a car"]
    together = metric.score(scenes, captions)
    assert metric.score(scenes[::-1], captions[::-1]) == pytest.approx(together[::-1], abs=1e-4)
    assert metric.score([], []) == []
    with pytest.raises(UserError, match="3 pictures and 1 caption:"):
        metric.score(scenes, ["an apple"])


def test_long_captions_are_compared_by_their_beginning(small_clip: Path, scenes: list[Image.Image]) -> None:
    """16 tokens are read, with start and end; the end token holds the embedding of the text."""
    metric = ClipScore.load(small_clip)
    whole, long = "dog " * 14, "dog " * 15
    assert metric.limit == 16
    assert metric.cut([whole, long]) == [1]
    beginning, cut, longer = metric.score(scenes[:1] * 3, [whole, long, "dog " * 200])
    assert beginning > 0
    assert cut == longer == pytest.approx(beginning, abs=1e-4)


def test_missing_weights_are_named_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (tmp_path, tmp_path / "none", "nobody/no-such-clip"):
        with pytest.raises(UserError, match=r"the CLIP model.*omit the CLIP score"):
            ClipScore.load(name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"torchvision|checkpoints.*download it"):
        Lpips.load()


def test_lpips_is_zero_for_equal_pictures_and_symmetric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes: list[Image.Image]
) -> None:
    """With a random backbone in place of the published one, since these laws hold for any."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    file = tmp_path / "checkpoints" / models.AlexNet_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir()
    torch.save(models.alexnet(weights=None).state_dict(), file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metric = Lpips.load("alex")
    assert metric.distances(scenes, scenes) == pytest.approx([0, 0, 0], abs=1e-6)
    there = metric.distances(scenes[:2], scenes[1:])
    assert min(there) > 0
    assert metric.distances(scenes[1:], scenes[:2]) == pytest.approx(there, rel=1e-5)
    with pytest.raises(UserError, match="at the same size"):
        metric.distances(scenes[:1], [scenes[0].resize((32, 32))])
