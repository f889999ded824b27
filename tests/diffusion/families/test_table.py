"""docs/models.md has every class that `AutoPipelineForText2Image` loads."""

from fedaigc.diffusion.exactness import PROVEN
from tests.diffusion.families.table import PAGE, automatic_classes, other_rows


def test_every_class_has_a_row() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")}
    assert len(automatic_classes()) > 40
    assert automatic_classes().keys() <= found
    assert found >= PROVEN


def test_classes_without_a_small_pipeline_have_what_the_code_says() -> None:
    lines = other_rows()
    assert "\n".join(lines) in PAGE.read_text(encoding="utf-8")
    assert any("takes no num_inference_steps" in line for line in lines)
