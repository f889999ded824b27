"""A home and its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedaigc.deployment.page.serving import serving_page
from fedaigc.device.home.home import Home
from tests.deployment.page.pages import idle


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home", 1)


@pytest.fixture
def url(home: Home) -> Iterator[str]:
    """Return the address of the page of `home`."""
    with serving_page(home, idle) as url:
        yield url
