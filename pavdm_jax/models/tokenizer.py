"""Captions to token ids: sentencepiece, with T5's special tokens."""

import collections
import functools
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import sentencepiece

from pavdm_jax.errors import ConfigError

PAD_ID, EOS_ID, UNKNOWN_ID = 0, 1, 2

# --- tokens -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenizer:
    """A sentencepiece model. It is compared and hashed by its bytes, so it can be a static field of a pytree.

    Attributes:
      model_bytes: the content of a `spiece.model` file with `<pad>` 0 and `</s>` 1, as T5's and umT5's.

    Raises:
      ConfigError: the bytes are no sentencepiece model, or these special tokens have other ids.
    """

    model_bytes: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.model_bytes:
            raise ConfigError("the sentencepiece model is empty; pass the content of a spiece.model file")
        try:
            ids = self._processor.pad_id(), self._processor.eos_id()
        except RuntimeError:
            raise ConfigError(
                f"these {len(self.model_bytes)} bytes are no sentencepiece model; pass the content of a spiece.model "
                "file"
            ) from None
        if ids != (PAD_ID, EOS_ID):
            raise ConfigError(f"the sentencepiece model has ids {ids} for <pad>, </s>; T5 needs {(PAD_ID, EOS_ID)}")

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model_bytes)

    @functools.cached_property
    def _special(self) -> dict[str, int]:
        ids = (PAD_ID, EOS_ID, self._processor.unk_id(), self._processor.bos_id())  # -1: the model has none
        return {self._processor.id_to_piece(i): i for i in ids if i >= 0}

    @property
    def vocab_size(self) -> int:
        """The number of ids: `tokenize` returns ids in 0..vocab_size-1."""
        return self._processor.get_piece_size()

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of cleaned captions, each ending with `</s>`, also where a longer text is cut.

        Special tokens written in a text get their own ids, as upstream. Deviation: T5's `<extra_id_0>` … do not,
        because the cleaning takes them for HTML and removes them.

        Returns:
          ids int32 [b, max_tokens], padded with 0 at the end, and lengths int32 [b], 1..max_tokens.

        Raises:
          ConfigError: `texts` is one string and not a list of them, or `max_tokens` is below 1.
        """
        if isinstance(texts, str):
            raise ConfigError(f"tokenize takes a list of texts; put {texts!r} in one")
        if max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, for </s>, not {max_tokens}")
        ids = np.full((len(texts), max_tokens), PAD_ID, np.int32)
        lengths = np.zeros(len(texts), np.int32)
        for row, text in enumerate(texts):
            tokens = [*self._encode(text)[: max_tokens - 1], EOS_ID]
            ids[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return ids, lengths

    def count(self, text: str) -> int:
        """How many tokens a cleaned caption has, the `</s>` at its end included."""
        return len(self._encode(text)) + 1

    def _encode(self, text: str) -> list[int]:
        special = "|".join(map(re.escape, self._special))
        tokens: list[int] = []
        for part in re.split(f"({special})", text):
            tokens += [self._special[part]] if part in self._special else self._processor.encode(part)
        return tokens


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> bytes:
    """Train a sentencepiece model with T5's special ids (`<pad>` 0, `</s>` 1, `<unk>` 2, no `<s>`), for `Tokenizer`.

    The most frequent words get an id each, as many as fit beside the letters, which spell all other words. (Without
    this, sentencepiece splits the words of a small vocabulary, and captions take three times as many tokens.)

    Args:
      captions: cleaned captions, one sentence each.
      vocab_size: the most ids, special ones included; the model has fewer when the captions do not need them.

    Returns:
      The model's bytes, the same for the same captions.

    Raises:
      ConfigError: no captions, or `vocab_size` is too small for their characters.
    """
    captions = [caption for caption in captions if caption.strip()]
    if not captions:
        raise ConfigError("no captions to train a tokenizer on; pass at least one that is not empty")
    letters = sorted(set("".join(captions)) - {" "})
    smallest = 4 + len(letters)  # beside them, three special ids and the mark of a word's beginning
    if vocab_size < smallest:
        raise ConfigError(
            f"vocab_size {vocab_size} cannot hold the characters of these captions; use at least {smallest}"
        )
    counts = collections.Counter(word for caption in captions for word in re.findall(r"[^\W\d_]+", caption))
    words = sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - smallest]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        # The trainer takes the symbols out of the captions; the letters on their own leave it something to count.
        sentence_iterator=iter([*captions, *(letter * 2 for letter in letters)]),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        user_defined_symbols=[f"\u2581{word}" for word in words],
        required_chars="".join(letters),
        character_coverage=1.0,
        pad_id=PAD_ID,
        eos_id=EOS_ID,
        unk_id=UNKNOWN_ID,
        bos_id=-1,
        num_threads=1,  # the scores depend on the number of threads
        minloglevel=2,
    )
    return model.getvalue()
