"""Any changed value of a config of a further family is told apart, as `test_model_settings` shows for the core.

`make families` runs them.
"""

import inspect

import pytest

from fedaigc.diffusion.schedule.model_settings import _HARMLESS, differences, model_settings
from fedaigc.diffusion.schedule.stock_schedule import canonical_config
from tests.diffusion.families.registered import SMALL_FAMILIES, small_family
from tests.diffusion.schedule.test_model_settings import changed

pytestmark = pytest.mark.families


@pytest.mark.parametrize("name", SMALL_FAMILIES)
def test_any_changed_value_of_a_config_is_told_apart(name: str) -> None:
    pipe = small_family(name).pipe
    before, walked = model_settings(pipe), 0
    for part, component in pipe.components.items():
        if part == "scheduler" or not hasattr(component, "config"):
            continue
        config = component.config
        values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        for key, value in values.items():
            if key.startswith("_") or key in _HARMLESS or isinstance(value, dict):
                continue
            with changed(component, key, value):
                assert differences(model_settings(pipe), before) == [part], (part, key)
            walked += 1
    for key, value in pipe.config.items():
        if key not in pipe.components and not key.startswith("_") and key not in _HARMLESS:
            with changed(pipe, key, value):
                assert differences(model_settings(pipe), before) == ["pipeline"], key
    assert model_settings(pipe) == before
    assert walked > 20
    scheduler = canonical_config(pipe.scheduler)
    for key in inspect.signature(type(pipe.scheduler).__init__).parameters.keys() - {"self"}:
        with changed(pipe.scheduler, key, pipe.scheduler.config[key]):
            assert canonical_config(pipe.scheduler) != scheduler, key
