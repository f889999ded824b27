"""The section `evaluation` of a study."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedaigc.study.design.section import Section


class EvaluationSection(Section):
    """The primary endpoint: denoising loss of the shared stage on fixed (image, timestep, noise) triples.

    Attributes:
        triples: Triples per client, over its `test_images` or, in trials, its `validation_images`.
        test_images: Evaluation images per client: fresh ones of the client's own distribution, which no home
            holds.
        validation_images: The same for trials.
        every: Rounds between two evaluations. The last round is always evaluated.
        gallery: Images that a row draws after its last round, for comparison with as many real ones; 0 for none.
            Numbers that are worth a table need 1000.
        gallery_steps: Denoising steps of these images.
        gallery_guidance: Guidance scale of these images.
        features: Features of the gallery's distances. "judge" (the default on Scenes, and for Scenes alone), or
            "inception" for FID and KID. None on own pictures: no distances.
        inception_weights: File of Inception's weights; None: the one in torch's hub folder.
        scorer: "clip" for the CLIP score of the gallery.
        clip_model: Folder of the CLIP model, or its hub name in the local cache.
        keep_pictures: Whether to keep the gallery of every run in the work folder, also without such measures.
    """

    triples: Annotated[int, Field(ge=1)] = 64
    test_images: Annotated[int, Field(ge=1)] = 32
    validation_images: Annotated[int, Field(ge=1)] = 16
    every: Annotated[int, Field(ge=1)] = 4
    gallery: Annotated[int, Field(ge=0)] = 0
    gallery_steps: Annotated[int, Field(ge=1)] = 11
    gallery_guidance: Annotated[float, Field(ge=0)] = 5.0
    features: Literal["judge", "inception"] | None = None
    inception_weights: Path | None = None
    scorer: Literal["none", "clip"] = "none"
    clip_model: str = "openai/clip-vit-base-patch16"
    keep_pictures: bool = False
