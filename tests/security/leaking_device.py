"""A device that leaks, in each of many forms."""

import base64
import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from fedaigc.device.device import Device
from fedaigc.device.training.encoded_cache import encoded_images
from fedaigc.diffusion.encoding import encode_text
from fedaigc.federation.software import SOFTWARE
from fedaigc.federation.wire.codec import decode
from fedaigc.federation.wire.flat_arrays import flatten, manifest_of

VALUES = (
    "partition",
    "base",
    "version",
    "manifest",
    "num_examples",
    "num_steps",
    "rank",
    "format",
    "scales",
    "tasks",
    "signatures",
    "alone",
    "unreadable",
    "kind",
    "padding",
    "key",
    "node_key",
    "signature",
    "count",
    *SOFTWARE,
)


class Mutant(Device):
    """A device that leaks: `leak` changes the content of a message."""

    form: ClassVar[str]

    def share(self, *args: Any, **options: Any) -> Any:
        """Append the secret to the packet."""
        steps = super().share(*args, **options)
        return replace(steps, packet=steps.packet + self._in_bytes())

    def train(self, *args: Any, **options: Any) -> Any:
        """Put the secret among the weights of the update, or into the names of its metrics."""
        update = super().train(*args, **options)
        buffer = flatten(update.tensors)
        hidden = self._in_numbers()
        buffer[100 : 100 + hidden.size] = hidden
        tensors = decode(buffer, manifest_of(update.tensors), "float32", b"")
        return replace(update, tensors=tensors, metrics={**update.metrics, **self._in_metrics()})

    def _prompt(self) -> str:
        return self.prompts.all()[0].prompt

    def _token_ids(self) -> list[int]:
        pipe: Any = self.pipe
        ids: list[int] = pipe.tokenizer(self._prompt(), add_special_tokens=False).input_ids
        return ids

    def _embedding(self) -> np.ndarray:
        return encode_text(self.pipe, [self._prompt()])["prompt_embeds"][0].numpy()

    def _latents(self) -> np.ndarray:
        return encoded_images(self.images, self.pipe, self.base_hash, 64, 64).latents[0].numpy()

    def _pixels(self) -> np.ndarray:
        return np.asarray(self.images.all()[0].image)

    def _in_bytes(self) -> bytes:
        text = self._prompt().encode()
        png = io.BytesIO()
        self.images.all()[0].image.save(png, format="PNG")
        return {
            "plain": lambda: text.upper(),
            "base64": lambda: base64.b64encode(b"?" + text),
            "hexadecimal": lambda: text.hex().encode(),
            "gzip": lambda: gzip.compress(text),
            "UTF-16": lambda: text.decode().encode("utf-16-be"),
            "zstd": lambda: pa.compress(text, codec="zstd", asbytes=True),
            "base64 of zlib": lambda: base64.urlsafe_b64encode(zlib.compress(text)),
            "token ids, 16 bits": lambda: np.array(self._token_ids(), "<i2").tobytes(),
            "token ids, 64 bits": lambda: b"x" + np.array(self._token_ids(), "<i8").tobytes(),
            "embedding, 16 bits": lambda: self._embedding().astype("<f2").tobytes(),
            "pixels, 8 bits": lambda: self._pixels().tobytes(),
            "pixels, grey": lambda: self._pixels().mean(2).astype("u1").tobytes(),
            "picture file": png.getvalue,
            "latents, 8 bits": lambda: np.clip(self._latents() * 32, -128, 127).astype("i1").tobytes(),
            "latents, 32 bits": lambda: b"xyz" + self._latents().astype("<f4").tobytes(),
        }.get(self.form, bytes)()

    def _in_numbers(self) -> np.ndarray:
        forms: dict[str, Callable[[], np.ndarray]] = {
            "token ids as weights": lambda: np.array(self._token_ids(), np.float32),
            "embedding as weights": lambda: 0.01 * self._embedding().ravel(),
            "pixels as weights": lambda: (
                (1e-3 * self._pixels().transpose(2, 0, 1)).ravel().astype(np.float32)
            ),
            "latents as weights": lambda: 0.01 * self._latents().ravel() + 1,
        }
        return forms.get(self.form, lambda: np.zeros(0, np.float32))()

    def _in_metrics(self) -> dict[str, float]:
        return {
            "plain metric": lambda: {self._prompt(): 1.0},
            "one word metric": lambda: {"apple": 1.0},
            "base64 metric": lambda: {base64.b64encode(self._prompt().encode()).decode(): 1.0},
            "json metric": lambda: {json.dumps({"loss": self._prompt()}): 1.0},
            "token ids as metrics": lambda: dict(zip(VALUES, map(float, self._token_ids()), strict=False)),
        }.get(self.form, dict)()


IN_PACKETS = {
    "plain": "words",
    "base64": "words",
    "hexadecimal": "words",
    "gzip": "words",
    "UTF-16": "words",
    "zstd": "words",
    "base64 of zlib": "words",
    "token ids, 16 bits": "token ids",
    "token ids, 64 bits": "token ids",
    "embedding, 16 bits": "embedding",
    "pixels, 8 bits": "pixels",
    "pixels, grey": "pixels",
    "picture file": "pixels",
    "latents, 8 bits": "latents",
    "latents, 32 bits": "latents",
}
IN_UPDATES = {
    "plain metric": "words",
    "one word metric": "words",
    "base64 metric": "words",
    "json metric": "words",
    "token ids as metrics": "token ids",
    "token ids as weights": "token ids",
    "embedding as weights": "embedding",
    "pixels as weights": "pixels",
    "latents as weights": "latents",
}
