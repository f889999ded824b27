"""The page in a real browser: usable by keyboard alone, with real pictures, and without leaving loopback."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import RecordDict
from PIL import Image

from fedaigc.collaboration.session import FinishOrder
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.deployment.page.serving import serving_page
from fedaigc.device.home.gallery import Begun, Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.wire.generation_messages import finish_record
from fedaigc.federation.wire.messages import FAILURE, Ask, values_of
from tests.small_run import MakeRun
from tools.deployment.browser import Browser, browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs a Chromium")
SCRIPT = "<script>document.title = 'in'</script><img src=x onerror=\"document.title = 'in'\">"
FOCUSED = "document.activeElement.id || document.activeElement.tagName"


@pytest.fixture(scope="module")
def program() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(program: Browser) -> Iterator[Browser]:
    """A blank page, 1280 pixels wide. Afterwards, no request left loopback and no error was logged."""
    program.call("Page.navigate", url="about:blank")
    program.wait("location.href === 'about:blank'")
    program.resize(1280, 900)
    program.value("1")
    program.requests.clear()
    program.complaints.clear()
    yield program
    program.value("1")
    assert program.requests
    # whoever serves: one address, that of the page
    assert {httpx.URL(url).netloc for url in program.requests} == {httpx.URL(program.requests[0]).netloc}
    assert {httpx.URL(url).host for url in program.requests} == {"127.0.0.1"}
    assert program.complaints == []


@dataclass
class Served:
    """An agent with a page, whose prompts are those of the first home of `config`."""

    url: str
    agent: Agent
    config: FederationConfig

    def ask(self, kind: Ask, content: RecordDict | None = None) -> dict[str, Any]:
        """Send an order of a server and return the values of the reply."""
        text = self.config.to_run_config()[RUN_CONFIG_KEY]
        reply = self.agent.answer(kind, text, content if content is not None else RecordDict())
        assert FAILURE not in reply, values_of(reply, FAILURE)
        return values_of(reply)

    def draw(self, task_id: str, group_prompt: str | None) -> None:
        """Draw a prompt in four steps, two of them shared on `group_prompt`, or all alone."""
        pipe, base_hash = base_model(self.config.model)
        plan = build_plan(
            pipe, num_inference_steps=4, guidance_scale=1.0, base_hash=base_hash, height=32, width=32
        )
        packet = b""
        if group_prompt is not None:
            device = self.agent.open_device()
            packet = device.share(task_id, group_prompt, plan, 2, noise_seed=1).packet
        self.ask(Ask.FINISH, finish_record(FinishOrder(0, task_id, plan, noise_seed=1, packet=packet)))


@pytest.fixture
def served(make_run: MakeRun) -> Iterator[Served]:
    config = make_run(num_clients=1, prompts=("an apple on a table", "a dog near a river"))
    agent = Agent(config.home(0), AgentSettings(0, config.model, strip_pictures=4, reply_floor_s=0.01))
    with serving_page(agent.home, agent.status) as url:
        yield Served(url, agent, config)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home", 1)


@pytest.fixture
def url(home: Home) -> Iterator[str]:
    with serving_page(home, lambda: {"client": 0, "busy": True}) as url:
        yield url


def ready(page: Browser, url: str) -> None:
    page.open(url)
    page.wait("document.getElementById('agent').textContent.startsWith('The agent runs')")


def overflow(page: Browser) -> int:
    """Return by how many pixels the page is wider than its window."""
    return int(page.value("document.documentElement.scrollWidth - window.innerWidth"))


def texts(page: Browser, selector: str) -> list[str]:
    found: list[str] = page.value(
        f"[...document.querySelectorAll({selector!r})].map((node) => node.textContent)"
    )
    return found


def test_a_prompt_is_typed_by_keyboard_alone(page: Browser, home: Home, url: str) -> None:
    ready(page, url)
    page.press("Tab")
    assert page.value(FOCUSED) == "prompt"
    outline = "getComputedStyle(document.activeElement)"
    assert page.value(f"{outline}.outlineStyle") == "solid"
    assert float(page.value(f"parseFloat({outline}.outlineWidth)")) >= 2
    page.type("a shiny apple on a table")
    page.press("Enter")
    page.wait("document.querySelectorAll('#queue > li').length === 1")
    assert texts(page, "#queue .prompt") == ["a shiny apple on a table"]
    assert texts(page, "#queue .state") == ["waiting"]
    assert texts(page, "#news") == ["waiting: a shiny apple on a table"]
    assert [task.prompt for task in PromptQueue(home).all()] == ["a shiny apple on a table"]
    # ready for the next one, which is sent by the button
    assert page.value(FOCUSED) == "prompt"
    assert page.value("document.getElementById('prompt').value") == ""
    page.type("a dog on a bed")
    page.press("Tab")
    assert page.value(FOCUSED) == "BUTTON"
    page.press("Enter")
    page.wait("document.querySelectorAll('#queue > li').length === 2")
    assert texts(page, "#queue .prompt") == ["a dog on a bed", "a shiny apple on a table"]


def test_what_is_typed_and_focused_stays_while_the_page_changes(page: Browser, home: Home, url: str) -> None:
    PromptQueue(home).add("a cat near a river")
    ready(page, url)
    page.press("Tab")
    page.type("half a pro")
    page.value("window.first = document.querySelector('#queue > li')")
    PromptQueue(home).add("a dog on a bed")
    page.wait("document.querySelectorAll('#queue > li').length === 2")
    assert page.value(FOCUSED) == "prompt"
    assert page.value("document.getElementById('prompt').value") == "half a pro"
    # what was there is there still, and not made anew
    assert page.value("window.first === document.querySelectorAll('#queue > li')[1]")


def test_a_mistake_is_told_at_the_field(page: Browser, home: Home, url: str) -> None:
    ready(page, url)
    page.press("Tab")
    page.press("Enter")
    page.wait("document.getElementById('prompt-error').textContent !== ''")
    (told,) = texts(page, "#prompt-error")
    assert told.startswith("the text is empty")
    field = "document.getElementById('prompt')"
    assert page.value(f"{field}.getAttribute('aria-invalid')") == "true"
    assert "prompt-error" in page.value(f"{field}.getAttribute('aria-describedby')")
    assert page.value("document.getElementById('prompt-error').getAttribute('role')") == "alert"
    page.type("a dog on a bed")
    page.press("Enter")
    page.wait("document.querySelectorAll('#queue > li').length === 1")
    assert texts(page, "#prompt-error") == [""]
    assert page.value(f"{field}.getAttribute('aria-invalid')") == "false"
    # the browser itself notes an answer with an error's status, and nothing else
    assert ["status of 422" in complaint for complaint in page.complaints] == [True]
    page.complaints.clear()


def test_a_prompt_is_text_whatever_it_holds(page: Browser, home: Home, url: str) -> None:
    long = "x" * 900
    for prompt in (SCRIPT, long):
        PromptQueue(home).add(prompt)
    ready(page, url)
    assert texts(page, "#queue .prompt") == [long, SCRIPT]
    assert page.value("document.title") == "This device: fedaigc"
    assert page.value("document.querySelectorAll('script').length") == 1
    assert page.value("document.querySelectorAll('img').length") == 0
    assert overflow(page) == 0
    page.resize(390, 844, phone=True)
    assert overflow(page) == 0


def test_real_pictures_are_shown_with_their_way_and_what_was_disclosed(page: Browser, served: Served) -> None:
    # as the queue has them, the newest first
    dog, apple = (task["id"] for task in httpx.get(f"{served.url}state.json").json()["tasks"])
    served.ask(Ask.SIGNATURES)
    ready(page, served.url)
    assert texts(page, "#queue .state") == ["waiting", "waiting"]
    thread = threading.Thread(target=served.draw, args=(apple, "a fruit on a table"))
    thread.start()
    # it comes by itself
    page.wait("document.querySelectorAll('#gallery > li').length === 1", 60)
    thread.join()
    page.wait("document.getElementById('news').textContent === 'finished: an apple on a table'")
    served.draw(dog, None)
    page.wait("document.querySelectorAll('#gallery > li').length === 2", 60)
    assert texts(page, "#queue .state") == ["finished", "finished"]
    disclosed_dog, disclosed_apple = texts(page, "#queue .disclosed")
    assert "“a fruit on a table”, by the policy “kind”" in disclosed_apple
    assert "ran alone" not in disclosed_apple
    assert "It found no group and ran alone." in disclosed_dog
    assert texts(page, f"#picture-{apple} .strip figcaption") == [
        "received after 2 steps, all shared",
        "after step 3, run here",
        "after step 4, finished",
    ]
    assert texts(page, f"#picture-{dog} .strip figcaption") == [
        "noise",
        *(f"after step {step}, run here" for step in (1, 2, 3)),
        "after step 4, finished",
    ]
    assert page.value(f"document.querySelectorAll('#picture-{apple} .strip li.shared').length") == 1
    assert page.value(f"document.querySelectorAll('#picture-{apple} .bar .shared').length") == 2
    assert page.value(f"document.querySelectorAll('#picture-{apple} .bar .own').length") == 2
    page.value("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    page.wait("[...document.images].every((image) => image.complete && image.naturalWidth === 32)")
    assert page.value("document.images.length") == 2 + 3 + 5
    assert page.value("document.querySelector('.picture').alt") == "a dog near a river"
    assert page.value("[...document.images].every((image) => image.alt !== '')")
    # 2 steps of the apple, 4 of the dog, and 2 for the apple's group
    assert texts(page, "#sum-steps") == ["8"]
    assert texts(page, "#sum-steps-of") == ["2 of them for groups"]
    assert texts(page, "#sum-saved") == ["0"]
    for width, phone in ((1280, False), (390, True), (320, True)):
        for dark in (False, True):
            page.resize(width, 844, phone=phone, dark=dark)
            assert overflow(page) == 0
    # from the field to the button, and to a picture and on
    page.open(served.url)
    page.wait("document.querySelectorAll('#gallery > li').length === 2")
    visited = []
    for _ in range(4):
        page.press("Tab")
        visited.append(page.value(FOCUSED))
    assert visited == ["prompt", "BUTTON", "A", "A"]
    page.press("Enter")
    page.wait(f"location.hash === '#picture-{apple}'")


def test_a_picture_is_watched_while_it_is_drawn(page: Browser, home: Home, url: str) -> None:
    gallery, task_id = Gallery(home), PromptQueue(home).add("an apple on a table")
    ready(page, url)
    gallery.begin(Begun(task_id, 3, 11, 8, (3, 7)))
    for part, captions in enumerate(
        (
            ["received after 3 steps, all shared"],
            ["received after 3 steps, all shared", "after step 7, run here"],
        )
    ):
        gallery.save_part(task_id, part, Image.new("RGB", (8, 8)))
        page.wait(f"document.querySelectorAll('#queue .strip li').length === {part + 1}")
        assert texts(page, "#queue .strip figcaption") == captions
        assert texts(page, "#queue .state") == ["being drawn"]
    assert texts(page, "#news") == ["being drawn: an apple on a table"]


def test_damaged_files_are_named_and_all_else_is_shown(page: Browser, served: Served) -> None:
    dog, apple = (task["id"] for task in httpx.get(f"{served.url}state.json").json()["tasks"])
    for task_id in (dog, apple):
        served.draw(task_id, None)
    path = Gallery(served.agent.home).path(dog)
    path.write_bytes(path.read_bytes()[:-20])
    (served.agent.home.prompts / "000009-0123456789abcdef.json").write_bytes(b"{")
    ready(page, served.url)
    assert texts(page, "#damaged-files li") == [
        "prompts/000009-0123456789abcdef.json",
        f"gallery/{dog}.png",
    ]
    assert len(texts(page, "#queue > li")) == 2
    assert page.value("document.getElementById('damaged').checkVisibility()")
    assert texts(page, f"#picture-{dog} .place") == ["The file of this picture is damaged."]
    page.wait(f"document.querySelector('#picture-{apple} .picture').naturalWidth === 32")


def test_text_can_be_read_in_light_and_dark(page: Browser, url: str) -> None:
    """WCAG 2 requires a contrast of 4.5 to 1 for text and 3 to 1 for other elements."""
    ready(page, url)
    pairs = [(text, ground) for text in ("ink", "soft", "error", "focus") for ground in ("page", "card")]
    pairs += [("shared", "card"), ("own", "card"), ("on-button", "button")]
    for dark in (False, True):
        page.resize(1280, 900, dark=dark)
        for text, ground in pairs:
            colours = [
                page.value(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
                for name in (text, ground)
            ]
            assert contrast(*colours) >= 4.5, (text, ground, dark)
        edge = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
        assert contrast(page.value(edge.format("edge")), page.value(edge.format("page"))) >= 3


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours #rgb or #rrggbb."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_an_agent_that_is_gone_is_told(page: Browser, home: Home) -> None:
    with serving_page(home, lambda: {"client": 0, "busy": False}) as url:
        ready(page, url)
    page.wait("document.getElementById('agent').textContent.startsWith('The agent does not answer')")
    # the browser notes what it could not reach
    assert all("ERR_CONNECTION_REFUSED" in complaint for complaint in page.complaints)
    page.complaints.clear()
