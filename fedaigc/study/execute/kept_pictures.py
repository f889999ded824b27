"""The pictures that the runs of a study draw, kept as files: what measures of pictures are computed from.

work/pictures/<run id>/<mode>/ has NNNNNN.png and captions.jsonl, so that `fedaigc score` reads it too.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from fedaigc.data.pictures.captioned import CaptionedImage
from fedaigc.data.pictures.folder import read_folder
from fedaigc.data.pictures.lists import CAPTIONS
from fedaigc.errors import UserError
from fedaigc.study.execute.homes import made_once
from fedaigc.study.results.summary import MODES, Mode

FOLDER = "pictures"


def keep_pictures(
    work: Path, run_id: str, drawn: Mapping[Mode, Sequence[Image.Image]], captions: Sequence[str]
) -> None:
    """Write the pictures that a run drew in each mode; those of an interrupted run are replaced as a whole.

    Args:
        work: The work folder of the study.
        run_id: Id of the run.
        drawn: The pictures by mode.
        captions: Their captions.
    """

    def fill(target: Path) -> None:
        for mode, images in drawn.items():
            folder = target / mode
            folder.mkdir()
            lines = []
            for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
                image.save(folder / f"{number:06d}.png")
                lines.append(
                    json.dumps({"file": f"{number:06d}.png", "caption": caption}, ensure_ascii=False)
                )
            (folder / CAPTIONS).write_text("\n".join(lines) + "\n", encoding="utf-8")

    made_once(work / FOLDER / run_id, fill)


def kept_pictures(work: Path, run_id: str) -> dict[Mode, list[CaptionedImage]]:
    """Return the pictures of a run by mode.

    Raises:
        UserError: They were not kept, or are gone.
    """
    folder = work / FOLDER / run_id
    found: dict[Mode, list[CaptionedImage]] = {
        mode: list(read_folder(folder / mode)) for mode in MODES if (folder / mode).is_dir()
    }
    if not found:
        raise UserError(
            f"no pictures of {run_id} in {folder}: it was recorded without keeping them; remove its record "
            "to run it again, or leave out the measures of pictures"
        )
    return found
