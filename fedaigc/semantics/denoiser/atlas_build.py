"""Build an atlas from a list of captions: their vectors, then the tree, by repeated division into two."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from fedaigc.counting import counted
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed
from fedaigc.semantics.denoiser.atlas import LEAF, Atlas
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi
from fedaigc.validation import decoded_text

MIN_CAPTIONS = 8
"""Fewest captions of a node unless asked otherwise."""
_CHUNK = 64
_ITERATIONS = 20


def read_captions(path: Path) -> list[str]:
    """Return the captions of a text file, one a line, without empty and repeated ones, sorted.

    Raises:
        UserError: If the file cannot be read, is neither UTF-8 nor UTF-16 or UTF-32 with its mark, or has fewer than
            two captions.
    """
    try:
        text = decoded_text(path.read_bytes())
    except OSError as error:
        raise UserError(f"no captions in {path}: {error.strerror or error}") from None
    except ValueError as error:
        where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"{path} is not UTF-8{where}: save it as UTF-8") from None
    # str.splitlines would also end a caption at a form feed or a Unicode line separator
    found = sorted({line.strip() for line in text.split("\n")} - {""})
    if len(found) < 2:
        raise UserError(
            f"{path} has {counted(len(found), 'different caption')}, one a line: expected at least two"
        )
    return found


def build_atlas(
    pipe: Pipeline,
    space: DenoiserSpace,
    captions: Sequence[str],
    parts: Path,
    about: dict[str, str],
    min_captions: int = MIN_CAPTIONS,
    progress: Callable[[int], None] | None = None,
) -> Atlas:
    """Build the atlas of public captions: one evaluation of the denoiser a caption and noise, then the tree.

    Equal captions, in any order, give the same atlas.

    Args:
        pipe: The pipeline.
        space: The space.
        captions: The captions; empty and repeated ones do not count.
        parts: Folder for finished parts, from which an interrupted call continues; removed at the end.
        about: What a person should know: model, source and licence of the captions.
        min_captions: Fewest captions of a node.
        progress: Called with the number of captions that are done.

    Raises:
        UserError: If there are fewer captions than a node needs.
    """
    lines = sorted({caption.strip() for caption in captions} - {""})
    check_count(lines, min_captions)
    vectors = caption_vectors(pipe, space, lines, parts, progress)
    atlas = build_tree(space.hash, about, lines, vectors, min_captions)
    shutil.rmtree(parts)
    return atlas


def check_count(captions: Sequence[str], min_captions: int) -> None:
    """Raise UserError if there are fewer captions than one node needs."""
    if not 1 <= min_captions <= len(captions):
        raise UserError(
            f"{min_captions} captions a node: expected 1 to {len(captions)}, the number of different captions; add "
            "captions, or ask for fewer a node"
        )


def caption_vectors(
    pipe: Pipeline,
    space: DenoiserSpace,
    captions: Sequence[str],
    parts: Path,
    progress: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "n d"]:
    """Return the vector of each caption; what `parts` holds from an interrupted call is not computed again.

    Args:
        pipe: The pipeline.
        space: The space.
        captions: The captions.
        parts: Folder for finished parts, created if it does not exist. The caller removes it.
        progress: Called with the number of captions that are done.
    """
    parts.mkdir(parents=True, exist_ok=True)
    rows = []
    for start in range(0, len(captions), _CHUNK):
        chunk = list(captions[start : start + _CHUNK])
        name = hashlib.sha256("\n".join([space.hash, *chunk]).encode()).hexdigest()[:32]
        path = parts / f"{name}.npy"
        vectors = _stored(path, len(chunk))
        if vectors is None:
            vectors = phi(pipe, space, chunk)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, vectors)
            partial.replace(path)
        rows.append(vectors)
        if progress is not None:
            progress(start + len(chunk))
    return np.concatenate(rows)


def _stored(path: Path, count: int) -> Float[np.ndarray, "n d"] | None:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if len(found) == count else None


def build_tree(
    space: str,
    about: dict[str, str],
    captions: Sequence[str],
    vectors: Float[np.ndarray, "n d"],
    min_captions: int = MIN_CAPTIONS,
) -> Atlas:
    """Divide the captions in two by 2-means, and each part again, as long as both parts are large enough.

    The hyperplane is the one half way between the two means. Where it would leave a part with fewer than
    `min_captions`, it is moved along its normal vector until it does not: one outlier must not end a branch.

    Args:
        space: Hash of the space of the vectors.
        about: What a person should know about the atlas.
        captions: The captions.
        vectors: Vector of each caption.
        min_captions: Fewest captions of a node.

    Raises:
        UserError: If `min_captions` is below 1, or there are fewer captions.
    """
    check_count(captions, min_captions)
    values = vectors.astype(np.float32)
    children: list[list[int]] = []
    directions: list[Float[np.ndarray, " d"]] = []
    thresholds: list[float] = []
    waiting = [np.arange(len(captions))]
    # breadth first: children get larger numbers than their parent
    number = 0
    while number < len(waiting):
        rows = waiting[number]
        cut = _cut(values[rows], min_captions, number)
        if cut is None:
            children.append([LEAF, LEAF])
            directions.append(np.zeros(values.shape[1], np.float32))
            thresholds.append(0.0)
        else:
            direction, threshold = cut
            above = _above(values[rows], direction, threshold)
            children.append([len(waiting), len(waiting) + 1])
            directions.append(direction)
            thresholds.append(threshold)
            waiting += [rows[~above], rows[above]]
        number += 1
    return Atlas(
        space,
        about,
        tuple(captions),
        values,
        np.asarray(children, np.int64),
        np.asarray(directions, np.float32),
        np.asarray(thresholds, np.float32),
    )


def _cut(
    values: Float[np.ndarray, "n d"], least: int, number: int
) -> tuple[Float[np.ndarray, " d"], float] | None:
    """Return direction and threshold of a node's hyperplane; None if it is a leaf."""
    if len(values) < 2 * least or bool((values == values[0]).all()):
        return None
    # imported here because scipy loads slowly, and a device only follows a tree
    from scipy.cluster.vq import kmeans2

    means, _ = kmeans2(
        values.astype(np.float64), 2, iter=_ITERATIONS, minit="++", rng=derived_seed(0, "atlas", number)
    )
    direction = (means[1] - means[0]).astype(np.float32)
    # one product at a time, exactly as a device computes it
    along = np.array([float(direction @ row) for row in values])
    order = np.unique(along)
    middle = float(direction @ means.mean(0).astype(np.float32))
    # a threshold between two different values, with `least` on either side, next to the middle
    between = [
        float(np.float32((low + high) / 2))
        for low, high in pairwise(order)
        if least <= int((along <= low).sum()) <= len(along) - least
    ]
    fitting = [t for t in between if least <= int((along > t).sum()) <= len(along) - least]
    return (direction, min(fitting, key=lambda t: abs(t - middle))) if fitting else None


def _above(
    values: Float[np.ndarray, "n d"], direction: Float[np.ndarray, " d"], threshold: float
) -> Bool[np.ndarray, " n"]:
    return np.array([float(direction @ row) > float(np.float32(threshold)) for row in values])


def leaves(atlas: Atlas) -> Int[np.ndarray, " n"]:
    """Return the numbers of the nodes without children."""
    return np.flatnonzero(atlas.children[:, 0] == LEAF)
