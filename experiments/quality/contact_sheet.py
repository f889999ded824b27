"""Draw a contact sheet of 64 pictures: seeds 0 to 63 in order, every object at least twice, without a selection.

python -m experiments.quality.contact_sheet docs/images/contact_sheet.png
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from experiments.quality.sampling import draw, one_thread
from fedaigc.data.scene_words import OBJECTS, PLACES, RELATIONS
from fedaigc.data.scenes import Scene
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.rng import numpy_rng

COLUMNS, CELL = 8, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    one_thread()
    prompts = []
    for seed in range(64):
        random = numpy_rng(seed, "contact sheet")
        relation = RELATIONS[int(random.integers(len(RELATIONS)))]
        place = PLACES[int(random.integers(len(PLACES)))]
        prompts.append(Scene(OBJECTS[seed % len(OBJECTS)], relation, place, style="noto").caption)
    images = draw(load_pipeline(options.model), prompts, seeds=range(64))
    sheet = Image.new("RGB", (COLUMNS * (CELL + 4), len(prompts) // COLUMNS * (CELL + 18)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        left, top = i % COLUMNS * (CELL + 4), i // COLUMNS * (CELL + 18)
        sheet.paste(image.resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
        pen.text((left + 2, top + CELL + 3), prompt, fill="black")
    options.target.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(255).save(options.target, optimize=True)


if __name__ == "__main__":
    main()
