import pytest
from PIL import Image

from experiments.pretrain.negatives import TEST_ONLY, TRAINED, draw_negative
from fedaigc.data.scenes import draw_scenes, held_out_combinations
from fedaigc.metrics.judge import FEATURES, NONE, Judge


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def test_the_judge_reads_scenes_of_pairs_that_it_never_saw(judge: Judge) -> None:
    """Fresh seeds. The exact figures, measured on 2,000 scenes, are in judge.json."""
    drawn = list(draw_scenes(300, seed=20_001, triples=held_out_combinations()))
    verdicts = judge.score([image for _, image in drawn])
    pairs = [(verdict, scene) for verdict, (scene, _) in zip(verdicts, drawn, strict=True)]
    assert sum(v.object == s.object for v, s in pairs) >= 0.93 * len(pairs)
    assert sum(v.place == s.place for v, s in pairs) >= 0.97 * len(pairs)
    assert sum(v.style == s.style for v, s in pairs) >= 0.95 * len(pairs)


def test_it_rejects_colours_without_the_shape(judge: Judge) -> None:
    kinds = [*TRAINED, *TEST_ONLY]
    images = [draw_negative(kinds[i % len(kinds)], 20_002, i)[1] for i in range(275)]
    rejected = [verdict.object == NONE for verdict in judge.score(images)]
    assert sum(rejected) >= 0.85 * len(rejected)


def test_probabilities_sum_to_one_and_agree_with_the_verdict(judge: Judge) -> None:
    _, image = next(iter(draw_scenes(1, seed=3)))
    (verdict,) = judge.score([image])
    for label, odds in (
        (verdict.object, verdict.object_probabilities),
        (verdict.place, verdict.place_probabilities),
        (verdict.style, verdict.style_probabilities),
    ):
        assert sum(odds.values()) == pytest.approx(1, abs=1e-5)
        assert odds[label] == max(odds.values())


def test_features_are_the_penultimate_layer_and_nothing_gives_nothing(judge: Judge) -> None:
    images = [image for _, image in draw_scenes(3, seed=4)]
    features = judge.features(images)
    assert tuple(features.shape) == (3, FEATURES)
    assert not features[0].equal(features[1])
    assert judge.score([]) == []


def test_other_sizes_are_resized(judge: Judge) -> None:
    _, image = next(iter(draw_scenes(1, seed=5)))
    large = image.resize((256, 256), Image.Resampling.NEAREST)
    assert judge.score([large])[0].object == judge.score([image])[0].object
