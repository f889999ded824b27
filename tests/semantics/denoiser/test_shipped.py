"""The atlas and calibration that ship: as they are built, for the default settings, and for no other model."""

from pathlib import Path

import numpy as np
import pytest

from experiments.default_atlas.build import default_setting
from experiments.default_atlas.captions import default_captions, phrase, plural, scenes_captions
from fedaigc.errors import UserError
from fedaigc.federation.config.denoiser_section import DenoiserSection
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.sharing_distance import phi
from fedaigc.semantics.denoiser.shipped import SCENES, sharing_files, shipped_files


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return Atlas.read(shipped_files("embedded")[0])


def test_its_captions_are_generated_and_hold_all_of_scenes(atlas: Atlas) -> None:
    assert list(atlas.captions) == default_captions()
    assert set(scenes_captions()) < set(atlas.captions)
    assert "Apache-2.0" in atlas.about["note"]
    assert [phrase("owl"), plural("man"), plural("bus")] == ["an owl", "men", "buses"]


def test_rebuilding_a_part_gives_its_vectors(atlas: Atlas) -> None:
    pipe, _, space = default_setting()
    assert atlas.space == space.hash
    rows = [0, 700, 1400, 2100, len(atlas.captions) - 1]
    rebuilt = phi(pipe, space, [atlas.captions[row] for row in rows])
    np.testing.assert_allclose(rebuilt, atlas.vectors[rows], rtol=1e-3, atol=1e-2)


def test_its_nodes_hold_enough_captions_and_are_small_enough_to_ship(atlas: Atlas) -> None:
    assert min(atlas.counts) >= DenoiserSection().min_captions
    files = shipped_files("embedded")
    assert sum(path.stat().st_size for path in files) < 1 << 20


def test_the_calibration_fits_the_default_settings() -> None:
    _, plan, space = default_setting()
    curve = Calibration.read(shipped_files("embedded")[1])
    curve.check_fits(space.hash, plan)
    assert curve.handoffs == tuple(range(1, plan.num_steps))
    # pairs enough to share at all: next to a caption nothing is lost
    assert curve.last_handoff(min(curve.distances), DenoiserSection().tolerance) >= 3


def test_a_run_without_an_atlas_uses_what_ships(tmp_path: Path, atlas: Atlas) -> None:
    config = parse_config({"homes": tmp_path, "output": tmp_path, "generation": {"denoiser": {}}})
    disclosure = node_disclosure(config.absolute())
    assert disclosure.atlas.hash == atlas.hash
    assert disclosure.calibration is not None
    own = Path("own.atlas")
    assert sharing_files(own, None, "embedded") == (own, None)
    assert sharing_files(own, None, "another") == (own, None)


def test_the_calibration_of_scenes_fits_the_default_settings_and_shares_more(tmp_path: Path) -> None:
    generation = {"denoiser": {"calibration": "scenes"}}
    config = parse_config({"homes": tmp_path, "output": tmp_path, "generation": generation}).absolute()
    assert config.generation.denoiser is not None
    assert config.generation.denoiser.calibration == SCENES
    scenes, section = node_disclosure(config).calibration, DenoiserSection()
    assert scenes is not None
    _, plan, space = default_setting()
    scenes.check_fits(space.hash, plan)
    any_words = Calibration.read(shipped_files("embedded")[1])
    ladder = tuple(range(1, 11))
    for apart in (4.0, 6.0, 8.0):
        more, fewer = (
            curve.last_handoff(apart, section.tolerance, ladder, risk=section.risk)
            for curve in (scenes, any_words)
        )
        assert more > fewer
    with pytest.raises(UserError, match="no atlas ships"):
        sharing_files(None, SCENES, "another")


def test_no_other_model_has_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fedaigc atlas build"):
        shipped_files("stabilityai/sd-turbo")
    with pytest.raises(UserError, match=r"no atlas ships for the model"):
        parse_config(
            {
                "homes": tmp_path,
                "output": tmp_path,
                "model": {"name": "stabilityai/sd-turbo"},
                "generation": {"denoiser": {}},
            }
        )
