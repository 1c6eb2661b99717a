"""Prompts to features of the text encoder, which is read for new texts only.

T5-XXL is four times as large as the transformer and is needed only briefly, so a model loaded for generation does not
hold it. The features of each text are kept on disk, `features/MODEL/TEXT.npz` in the cache folder; for texts that are
not there, the encoder is read layer by layer. A model that holds its text encoder (in training, or made in memory) uses
it, and no disk.
"""

import functools
import io
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from pavdm_jax import storage
from pavdm_jax.checkpoints.fingerprint import fingerprint, text_fingerprint
from pavdm_jax.checkpoints.model_folder import open_model
from pavdm_jax.errors import ConfigError, of_machine
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.models.linear import default_precision
from pavdm_jax.models.model import Model, abstract_params, in_dtype
from pavdm_jax.models.t5 import T5Encoder
from pavdm_jax.storage import cache_folder
from pavdm_jax.text.captions import check_readable, clean, complete
from pavdm_jax.text.layerwise_t5 import encode_from_disk

AT_ONCE = 64
"""Texts for which the encoder is read from the disk once: after each so many, features are kept, and memory is free."""


def prompt_features(
    model: Model, prompts: Sequence[str], dtype: DTypeLike, progress: bool = False, negative: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Features of prompts by the text encoder.

    Texts are encoded one by one, so that the features of a text do not depend on the others; equal texts are encoded
    once.

    Args:
      model: only the parameters of its text encoder are used, and only if it has them; else those in its folder.
      prompts: as the user wrote them; they are cleaned and completed here.
      dtype: in which the text encoder computes; when it is read from the folder, its parameters are kept in this dtype,
        too.
      progress: show a bar when reading the text encoder takes long.
      negative: negative prompts, which are cleaned, but no scores are appended: guidance leads towards those.

    Returns:
      Features float32 [n, l, d] of the n prompts and, after them, negative prompts, zero at the padding; and token
      counts int32 [n].

    Raises:
      ConfigError: a prompt is empty after cleaning, there is no text encoder, or the cache cannot be written.
    """
    config = model.config
    check_readable((*prompts, *negative), config.text)
    captions = [complete(prompt, config.text) for prompt in prompts] + [clean(text, config.text) for text in negative]
    _warn_of_cut(model, captions)
    texts = list(dict.fromkeys(captions))
    if "t5" in model.params:
        known = _encode_in_memory(model, texts, dtype)
    else:
        known = _encode_from_folder(model, texts, dtype, progress)
    lengths = np.asarray([len(known[caption]) for caption in captions], np.int32)
    padded = np.zeros((len(captions), config.text.max_tokens, config.t5.d_model), np.float32)
    for row, caption in zip(padded, captions, strict=True):
        row[: len(known[caption])] = known[caption]
    return padded, lengths


def _warn_of_cut(model: Model, captions: Sequence[str]) -> None:
    """Say which texts are longer than the text encoder reads."""
    most = model.config.text.max_tokens
    for caption in dict.fromkeys(captions):
        count = 0 if model.tokenizer is None else model.tokenizer.count(caption)
        if count > most:
            shown = caption if len(caption) < 100 else f"{caption[:70]} ... {caption[-20:]}"
            warnings.warn(f"of {count} tokens of a prompt the first {most} are read: {shown}", stacklevel=3)


def _encode_in_memory(model: Model, captions: list[str], dtype: DTypeLike) -> dict[str, np.ndarray]:
    """The features [tokens, d] of captions, by the text encoder that the model holds in memory."""
    if model.tokenizer is None:
        raise ConfigError("the model has a text encoder, but no tokenizer; give it one")
    ids, lengths = model.tokenizer.tokenize(captions, model.config.text.max_tokens)
    encode = functools.partial(encode_text, model.params["t5"], config=model.config, dtype=dtype)
    encoded = [encode(*row) for row in zip(ids[:, None], lengths[:, None], strict=True)]
    return _without_padding(captions, encoded, lengths)


def _encode_from_folder(
    model: Model, captions: list[str], dtype: DTypeLike, progress: bool = False
) -> dict[str, np.ndarray]:
    """The features [tokens, d] of captions, from the cache, or else by the text encoder in the model's folder."""
    if model.folder is None:
        raise ConfigError("the model has no text encoder: its params lack t5, and it has no folder")
    if model.tokenizer is None:
        raise ConfigError(
            f"{model.folder} has no text encoder (t5); add one: python -m pavdm_jax.convert_weights --text-encoder "
            f"PATH --output {model.folder}"
        )
    config = model.config
    computed_in = (jnp.dtype(dtype).name, *filter(None, [default_precision()]))
    cache = cache_folder() / "features" / fingerprint(text_fingerprint(model), *computed_in)
    stored = {caption: _read(_entry(cache, caption), config) for caption in captions}
    known = {caption: features for caption, features in stored.items() if features is not None}
    missing = [caption for caption in captions if caption not in known]
    for first in range(0, len(missing), AT_ONCE):
        group = missing[first : first + AT_ONCE]
        ids, lengths = model.tokenizer.tokenize(group, config.text.max_tokens)
        folder = open_model(model.folder, ["t5"]).folder / "params" / "t5"
        expected = in_dtype(abstract_params(config)["t5"], dtype)
        encoded = encode_from_disk(folder, expected, ids, lengths, config=config.t5, dtype=dtype, progress=progress)
        for caption, features in _without_padding(group, encoded, lengths).items():
            known[caption] = features
            _write(_entry(cache, caption), features)
    return known


def _without_padding(captions: list[str], encoded: Sequence, lengths: np.ndarray) -> dict[str, np.ndarray]:
    rows = zip(captions, encoded, lengths, strict=True)
    # Copies, as a view would keep the padding in memory.
    return {caption: np.asarray(features)[0, :length].copy() for caption, features, length in rows}


def _entry(folder: Path, caption: str) -> Path:
    return folder / f"{fingerprint(caption)}.npz"


def _read(path: Path, config: AnyModelConfig) -> np.ndarray | None:
    """The features [tokens, d] in a file, or None when it is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            features = arrays["features"]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error):
        return None
    if not isinstance(features, np.ndarray):  # a file of another kind within the archive
        return None
    width, whole = config.t5.d_model, features.ndim == 2 and 1 <= len(features) <= config.text.max_tokens
    return features if whole and features.shape[1] == width and features.dtype == np.float32 else None


def _write(path: Path, features: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez(content, features=features)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(path, content.getvalue())
    except OSError as error:
        problem = f"the features of the prompts cannot be kept in {path.parent} ({error.strerror or error})"
        raise of_machine(error, f"{problem}; set PAVDM_CACHE to a folder that can be written") from None


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def encode_text(params: dict, ids: jax.Array, lengths: jax.Array, *, config: AnyModelConfig, dtype: DTypeLike):
    """T5 features, float32 [b, l, d], of token ids [b, l]; `params` are the text encoder's."""
    return T5Encoder(config.t5, dtype).apply({"params": params}, ids, lengths)
