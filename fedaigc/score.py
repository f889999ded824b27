"""`fedaigc score`: how well pictures fit their captions, and how far they are from references."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedaigc.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from fedaigc.data.pictures.captioned import ListedImage
    from fedaigc.metrics.intervals import Estimate
    from fedaigc.study.results.table_files import Table

CLIP_SCORE = "clip_score"
OBJECT, PLACE = "object_probability", "place_probability"
LPIPS = "lpips"
OUTPUTS = (".csv", ".json")


@dataclass(frozen=True)
class ScoreSettings:
    """What `score_pictures` computes; every measure is left out unless it is asked for.

    Attributes:
        clip: Folder of a CLIP model, or its hub name in the local cache, for the CLIP score.
        judge: The shipped judge's probability that a picture shows the object and the place of its caption. For
            pictures of Scenes alone: it knows nothing else.
        lpips: Backbone of LPIPS, the distance of each picture from its reference.
        references: Folder with a reference for every picture, under the same file name. For `features` alone, any
            names will do, but as many references as pictures.
        features: Features of the distances between all pictures and all references: "inception" for FID and KID,
            or "judge", which is valid for Scenes alone.
        inception_weights: File of Inception's weights; None: the one in torch's hub folder.
    """

    clip: str | None = None
    judge: bool = False
    lpips: Literal["alex", "vgg", "squeeze"] | None = None
    references: Path | None = None
    features: Literal["inception", "judge"] | None = None
    inception_weights: Path | None = None


@dataclass(frozen=True)
class PictureScores:
    """The scores of one picture.

    Attributes:
        file: Name of its file.
        caption: Its caption.
        values: The score by measure; None where a measure says nothing, such as the judge about a caption
            without a place.
    """

    file: str
    caption: str
    values: dict[str, float | None]


@dataclass(frozen=True)
class Scores:
    """The scores of all pictures.

    Attributes:
        pictures: One entry a picture.
        distances: Distances between all pictures and all references, by name. They have no interval: pictures are
            one sample of each.
        cut: Files whose captions have more tokens than CLIP reads: their beginning was compared.
        token_limit: The most tokens that CLIP reads; 0 if it was not asked.
    """

    pictures: tuple[PictureScores, ...]
    distances: dict[str, float] = field(default_factory=dict)
    cut: tuple[str, ...] = ()
    token_limit: int = 0

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures."""
        return tuple(self.pictures[0].values)

    def means(self) -> "dict[str, Estimate]":
        """Return mean and 95 % t interval of each measure that has a value for two pictures or more.

        Pictures count as independent. Several pictures of one caption are not, and the interval is then too
        narrow.
        """
        from fedaigc.study.results.statistics import t_interval

        found = {}
        for name in self.measures:
            values = [value for each in self.pictures if (value := each.values[name]) is not None]
            if len(values) > 1:
                found[name] = t_interval(values)
        return found

    def table(self) -> "Table":
        """Return a table with a row a picture, and below them the means, where there are any."""
        from fedaigc.study.results.table_files import Cell, Column, Table

        names = (*self.measures, *self.distances)
        columns = (Column("file"), Column("caption"), *(Column(name, "right") for name in names))
        rows: list[tuple[Cell, ...]] = [
            (
                each.file,
                each.caption,
                *("" if value is None else repr(value) for value in each.values.values()),
                *("" for _ in self.distances),
            )
            for each in self.pictures
        ]
        means, blank = self.means(), tuple("" for _ in self.measures)
        if means:
            own = tuple(means.get(name, "") for name in self.measures)
            rows.append(("mean", "", *own, *("" for _ in self.distances)))
        if self.distances:
            rows.append(("all pictures", "", *blank, *map(repr, self.distances.values())))
        return Table(columns, tuple(rows))

    def as_dict(self) -> dict[str, Any]:
        """Return the scores and their means as JSON values."""
        return {
            "pictures": [
                {"file": each.file, "caption": each.caption, **each.values} for each in self.pictures
            ],
            "mean": {name: estimate.as_dict() for name, estimate in self.means().items()},
            **({"distances": self.distances} if self.distances else {}),
            **({"cut_captions": list(self.cut)} if self.cut else {}),
        }


def score_pictures(folder: Path, settings: ScoreSettings) -> Scores:
    """Score the pictures of a folder against their captions and references.

    Args:
        folder: Pictures with captions, as `read_folder` reads them, or a device's home: the finished images of
            its gallery, with their prompts as captions.
        settings: The measures.

    Raises:
        UserError: If no measure is chosen, if a picture, a caption, a reference or the weights of a measure are
            missing, or if the judge knows neither object nor place of any caption.
    """
    if not (settings.clip or settings.judge or settings.lpips or settings.features):
        raise UserError(
            "nothing to score with: give --clip FOLDER, --judge, or --lpips NET or --features NET with --references"
        )
    if (settings.lpips is None and settings.features is None) != (settings.references is None):
        raise UserError(
            "LPIPS, FID and KID compare pictures with references: give --lpips NET or --features NET, and "
            "--references FOLDER"
        )
    from fedaigc.data.pictures.lazy import PictureFiles

    pictures = _pictures(folder)
    references = _references(pictures, settings.references if settings.lpips else None)
    images, captions = PictureFiles([each.path for each in pictures]), [each.captions[0] for each in pictures]
    columns: dict[str, Sequence[float | None]] = {}
    cut, limit = tuple[str, ...](), 0
    if settings.clip:
        from fedaigc.metrics.perceptual import ClipScore

        clip = ClipScore.load(settings.clip)
        columns[CLIP_SCORE], limit = clip.score(images, captions), clip.limit
        cut = tuple(pictures[place].path.name for place in clip.cut(captions))
    if settings.judge:
        columns |= _judged(images, captions)
    if settings.lpips:
        from fedaigc.metrics.perceptual import Lpips

        columns[LPIPS] = Lpips.load(settings.lpips).distances(images, references)
    distances = {}
    if settings.features and settings.references:
        distances = _distances(images, settings.references, settings.features, settings.inception_weights)
    return Scores(
        tuple(
            PictureScores(
                each.path.name, each.captions[0], {name: column[i] for name, column in columns.items()}
            )
            for i, each in enumerate(pictures)
        ),
        distances,
        cut,
        limit,
    )


def write_scores(scores: Scores, path: Path, *, exist_ok: bool = False) -> None:
    """Write scores to a file, as its name says: .csv or .json.

    Raises:
        UserError: As `check_output`.
    """
    from fedaigc.storage.atomic_file import json_bytes, write_file

    check_output(path, exist_ok=exist_ok)
    csv = path.suffix == ".csv"
    data = scores.table().to_csv().encode() if csv else json_bytes(scores.as_dict())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, data)


def check_output(path: Path, *, exist_ok: bool = False) -> None:
    """Check a name for scores before they are computed.

    Raises:
        UserError: If it ends in something else than .csv or .json, or if the file exists.
    """
    if path.suffix not in OUTPUTS:
        raise UserError(f"{path} ends in {path.suffix!r}: scores are written as {' or '.join(OUTPUTS)}")
    if path.exists() and not exist_ok:
        raise UserError(f"{path} exists: give another name, or --force to replace it")


def _pictures(folder: Path) -> "list[ListedImage]":
    from fedaigc.data.pictures.captioned import ListedImage
    from fedaigc.data.pictures.folder import list_folder
    from fedaigc.device.home.gallery import Gallery
    from fedaigc.device.home.home import Home

    if not (folder / "device.json").is_file():
        listed = list_folder(folder)
        for each in listed:
            if each.captions[1:]:
                raise UserError(
                    f"{each.path} has {len(each.captions)} captions: a score compares a picture with one; keep one"
                )
        return listed
    gallery = Gallery(Home.open(folder))
    entries = gallery.all()
    if not entries:
        raise UserError(f"no finished pictures in the gallery of {folder}")
    return [ListedImage(gallery.path(entry.task_id), (entry.prompt,)) for entry in entries]


def _references(pictures: "Sequence[ListedImage]", folder: Path | None) -> "Sequence[Image.Image]":
    from fedaigc.data.pictures.lazy import PictureFiles

    if folder is None:
        return []
    files = [folder / each.path.name for each in pictures]
    for file in files:
        if not file.is_file():
            raise UserError(f"no reference {file}: every picture needs one of its name")
    return PictureFiles(files)


def _distances(
    images: "Sequence[Image.Image]",
    folder: Path,
    features: Literal["inception", "judge"],
    weights: Path | None,
) -> dict[str, float]:
    """Frechet and kernel distance of all pictures to all references; the names say in which features."""
    from fedaigc.data.pictures.folder import picture_files
    from fedaigc.data.pictures.lazy import PictureFiles
    from fedaigc.metrics.distribution import frechet_distance, judge_features, kernel_distance

    files = picture_files(folder)
    if len(files) != len(images):
        raise UserError(
            f"{len(images)} pictures and {len(files)} references in {folder}: FID and KID depend on the number, so "
            "give equally many of both"
        )
    if len(images) < 2:
        raise UserError("FID and KID compare sets: give at least two pictures")
    if features == "inception":
        from fedaigc.metrics.inception import InceptionFeatures

        network: Any = InceptionFeatures.load(weights)
        names = ("fid", "kid")
    else:
        from functools import partial

        from fedaigc.metrics.judge import Judge

        network = partial(judge_features, Judge.load())
        names = ("frechet_distance_judge", "kid_judge")
    both = (network(PictureFiles(files)).double(), network(images).double())
    found = (frechet_distance(*both, min_images=2), kernel_distance(*both, min_images=2))
    return dict(zip(names, found, strict=True))


def _judged(images: "Sequence[Image.Image]", captions: Sequence[str]) -> dict[str, list[float | None]]:
    from fedaigc.device.scoring import SceneScorer
    from fedaigc.semantics.concepts.parser import parse
    from fedaigc.semantics.concepts.taxonomy import Taxonomy

    taxonomy, scorer = Taxonomy.load(), SceneScorer()
    found: dict[str, list[float | None]] = {OBJECT: [], PLACE: []}
    for image, caption in zip(images, captions, strict=True):
        parsed = parse(caption, taxonomy)
        confidence = scorer(image, parsed.object, parsed.place)
        found[OBJECT].append(confidence.object)
        found[PLACE].append(confidence.place)
    if not any(value is not None for column in found.values() for value in column):
        raise UserError(
            f"the judge knows the objects and places of Scenes alone, and no caption names one: "
            f"{captions[0]!r}; leave out --judge"
        )
    return found
