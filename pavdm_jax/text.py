"""From a prompt to token ids: scores appended, caption cleaned as for the published weights, sentencepiece.

The cleaning is the one that DeepFloyd IF introduced for web captions and Open-Sora (opensora/models/text_encoder/t5.py) kept: the
published weights were trained on captions that went through it, so prompts must too, oddities included.
"""

import collections
import functools
import html
import html.entities
import io
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import NamedTuple

import ftfy
import numpy as np
import sentencepiece

from pavdm_jax.config import ConfigError, require

PAD_ID, EOS_ID, UNKNOWN_ID = 0, 1, 2

# --- prompts ----------------------------------------------------------------------------------------------------------


def compose_prompt(
    prompt: str,
    aesthetic_score: float | None = None,
    motion_score: float | None = None,
    camera_motion: str | None = None,
) -> str:
    """Append the scores that Open-Sora was trained to read; what is None, or in the prompt already, is not appended.

    Scores are written with one decimal, as upstream does (opensora/utils/inference_utils.py). Usual values: aesthetic score 4 to 7,
    motion score 0 to 20 (optical flow), camera motion such as "pan right". Apply it before `clean_caption`.
    """
    suffixes = {
        "aesthetic score:": None if aesthetic_score is None else f"{aesthetic_score:.1f}",
        "motion score:": None if motion_score is None else f"{motion_score:.1f}",
        "camera motion:": camera_motion,
    }
    new = [f" {name} {value}." for name, value in suffixes.items() if value is not None and name not in prompt]
    return prompt + "".join(new)


def clean_caption(caption: str) -> str:
    """Clean a caption as the reference does: twice, because the first pass uncovers what the second removes."""
    return _clean_once(_clean_once(caption))


def _clean_once(caption: str) -> str:
    text = urllib.parse.unquote_plus(caption).strip().lower()
    text = _substitute(_ADDRESSES, text)
    text = _visible_text(text)
    text = _substitute(_SYMBOLS, text)
    if len(re.findall("[-_]", text)) > 3:  # words-joined-like-this, not a compound or two
        text = re.sub("[-_]", " ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _substitute(_WORDS, text).strip()


class _Rule(NamedTuple):
    pattern: str
    replacement: str
    reason: str


def _substitute(rules: Sequence[_Rule], text: str) -> str:
    for rule in rules:
        text = re.sub(rule.pattern, rule.replacement, text)
    return text


_HOST = r"[a-z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_FILE_TYPE = "(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
_HYPHENS = "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"

# The order matters, within a table and between them: each rule sees what the ones before it left.
_ADDRESSES = (
    _Rule("<person>", "person", "a placeholder of some data sets, which would be taken for HTML"),
    _Rule(rf"\b(?:https?:(?:/{{1,3}}|[a-z0-9%])|{_HOST})", "", "web addresses"),
    _Rule(rf"\b(?:www:(?:/{{1,3}}|[a-z0-9%])|{_HOST})", "", "web addresses"),
)
_SYMBOLS = (
    _Rule(r"@\w+\b", "", "user names"),
    _Rule("[\u31c0-\u9fff]+", "", "Chinese characters and their symbols; common kana and hangul stay"),
    _Rule(f"[{_HYPHENS}]+", "-", "one dash for every kind of dash"),
    _Rule("[`\u00b4«»“”¨]", '"', "one double quote"),
    _Rule("[\u2018\u2019]", "'", "one single quote"),
    _Rule("&quot;?", "", "escaped quotes that survived"),
    _Rule("&amp", "", "escaped ampersands that survived"),
    _Rule(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " ", "IP addresses"),
    _Rule(r"\d:\d\d\s+$", "", "article numbers"),
    _Rule(r"\\n", " ", "line breaks written as two characters"),
    _Rule(r"#\d{1,3}\b", "", "short numbers behind a hash sign"),
    _Rule(r"#\d{5,}\b", "", "long numbers behind a hash sign"),
    _Rule(r"\b\d{6,}\b", "", "catalogue numbers"),
    _Rule(rf"\S+\.{_FILE_TYPE}", "", "file names"),
    _Rule("[\"']{2,}", '"', "repeated quotes"),
    _Rule(r"\.{2,}", " ", "repeated full stops"),
    _Rule(r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " ", "symbols that say nothing"),
    _Rule(r"\s+\.\s+", " ", "lonely full stops"),
)
_WORDS = (
    _Rule(r"\b[a-zA-Z]{1,3}\d{3,15}\b", "", "codes like jc6640"),
    _Rule(r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", "", "codes like jc6640vc"),
    _Rule(r"\b\d+[a-zA-Z]+\d+\b", "", "codes like 6640vc231"),
    _Rule(r"(?:worldwide\s+)?(?:free\s+)?shipping", "", "shop talk"),
    _Rule(r"(?:free\s)?download(?:\sfree)?", "", "shop talk"),
    _Rule(r"\bclick\b\s(?:for|on)\s\w+", "", "shop talk"),
    _Rule(rf"\b{_FILE_TYPE}(?:\simages?)?", "", "file types"),
    _Rule(r"\bpage\s+\d+\b", "", "page numbers"),
    _Rule(r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " ", "codes like j2d1a2a"),
    _Rule(
        r"\b\d+\.?\d*[x\u0445\u00d7]\d+\.?\d*\b", "", "sizes like 1920x1080, also with the Cyrillic letter or the sign"
    ),
    _Rule(r"\b\s+:\s+", ": ", "a space before a colon"),
    _Rule(r"(\D[,./])\b", r"\1 ", "no space after a comma or full stop"),
    _Rule(r"\s+", " ", "repeated white space"),
    _Rule(r"^[\"']([\w\W]+)[\"']$", r"\1", "quotes around the whole caption"),
    _Rule("^['_,\\-:;]", "", "punctuation in front"),
    _Rule("['_,\\-:+]$", "", "punctuation behind"),
    _Rule(r"^\.\S+$", "", "a caption that is a file type"),
)


class _VisibleText(HTMLParser):
    """Collects what a browser would show (upstream: BeautifulSoup's `.text` with Python's parser)."""

    _HIDDEN = frozenset({"script", "style", "template", "rt", "rp"})

    def __init__(self) -> None:
        # References come to the two handlers below, as upstream: unlike `html.unescape`, these leave "&copy2" alone.
        super().__init__(convert_charrefs=False)
        self.pieces: list[str] = []
        self._open_hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._HIDDEN:
            self._open_hidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open_hidden:
            del self._open_hidden[self._open_hidden.index(tag) :]

    def handle_data(self, data: str) -> None:
        if not self._open_hidden:
            self.pieces.append(data)

    def handle_charref(self, name: str) -> None:
        self.handle_data(html.unescape(f"&#{name};"))

    def handle_entityref(self, name: str) -> None:
        self.handle_data(html.entities.html5.get(f"{name};", f"&{name}"))

    def unknown_decl(self, data: str) -> None:
        if data.upper().startswith("CDATA["):
            self.handle_data(data[len("CDATA[") :])


def _visible_text(text: str) -> str:
    parser = _VisibleText()
    parser.feed(text)
    parser.close()
    return "".join(parser.pieces)


# --- tokens -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenizer:
    """A sentencepiece model; equal and hashed by its bytes, so it may be a static field of a pytree.

    Attributes:
      model_bytes: the content of a `spiece.model` file with `<pad>` 0, `</s>` 1 and `<unk>` 2, as T5's.

    Raises:
      ConfigError: the bytes are no sentencepiece model, or its special tokens have other ids.
    """

    model_bytes: bytes = field(repr=False)

    def __post_init__(self) -> None:
        require(bool(self.model_bytes), "the sentencepiece model is empty; pass the content of a spiece.model file")
        try:
            ids = self._processor.pad_id(), self._processor.eos_id(), self._processor.unk_id()
        except RuntimeError:
            raise ConfigError(
                f"these {len(self.model_bytes)} bytes are no sentencepiece model; pass the content of a spiece.model file"
            ) from None
        require(
            ids == (PAD_ID, EOS_ID, UNKNOWN_ID),
            f"the sentencepiece model has ids {ids} for <pad>, </s>, <unk>; T5 needs {(PAD_ID, EOS_ID, UNKNOWN_ID)}",
        )

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model_bytes)

    @functools.cached_property
    def _special(self) -> dict[str, int]:
        return {self._processor.id_to_piece(i): i for i in (PAD_ID, EOS_ID, UNKNOWN_ID)}

    @property
    def vocab_size(self) -> int:
        """The number of ids that `tokenize` can give."""
        return self._processor.get_piece_size()

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of cleaned captions, each closed by `</s>`; a longer text is cut in front of its `</s>`.

        Special tokens spelled out in a text count as themselves, as in the reference. Deviation: T5's `<extra_id_0>` … do not; the
        cleaning takes them for HTML and removes them.

        Returns:
          ids int32 [b, max_tokens], padded with 0 at the end, and lengths int32 [b], 1..max_tokens.

        Raises:
          ConfigError: `texts` is one string and not a list of them, or `max_tokens` is below 1.
        """
        require(not isinstance(texts, str), f"tokenize takes a list of texts; put {texts!r} in one")
        require(max_tokens >= 1, f"max_tokens must be at least 1, for </s>, not {max_tokens}")
        ids = np.full((len(texts), max_tokens), PAD_ID, np.int32)
        lengths = np.zeros(len(texts), np.int32)
        for row, text in enumerate(texts):
            tokens = [*self._encode(text)[: max_tokens - 1], EOS_ID]
            ids[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return ids, lengths

    def _encode(self, text: str) -> list[int]:
        special = "|".join(map(re.escape, self._special))
        tokens: list[int] = []
        for part in re.split(f"({special})", text):
            tokens += [self._special[part]] if part in self._special else self._processor.encode(part)
        return tokens


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> bytes:
    """Train a sentencepiece model with T5's special ids (`<pad>` 0, `</s>` 1, `<unk>` 2, no `<s>`), for `Tokenizer`.

    The most frequent words get an id each, as many as fit beside the letters, which spell the rest. (Left to itself, the training
    splits the words of a small grammar, whose captions then take three times the tokens.)

    Args:
      captions: cleaned captions, one sentence each.
      vocab_size: at most so many ids, special ones included; fewer when the captions do not need them.

    Returns:
      The model's bytes, the same for the same captions.

    Raises:
      ConfigError: no captions, or `vocab_size` is too small for their characters.
    """
    captions = [caption for caption in captions if caption.strip()]
    require(bool(captions), "no captions to train a tokenizer on; pass at least one that is not empty")
    letters = sorted(set("".join(captions)) - {" "})
    smallest = 4 + len(letters)  # beside them, three special ids and the mark of a word's beginning
    require(
        vocab_size >= smallest,
        f"vocab_size {vocab_size} cannot hold the characters of these captions; use at least {smallest}",
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
