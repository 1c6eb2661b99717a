"""Captions as the published weights were trained on them: with scores appended, and cleaned.

The cleaning is the one of DeepFloyd IF for web captions, which Open-Sora uses (opensora/models/text_encoder/t5.py). The
published weights were trained on cleaned captions, so prompts are cleaned in the same way, oddities included.
"""

import html.entities
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import NamedTuple

import ftfy

from pavdm_jax.config import TextConfig
from pavdm_jax.errors import ConfigError

# --- prompts ----------------------------------------------------------------------------------------------------------


def compose_prompt(
    prompt: str,
    aesthetic_score: float | None = None,
    motion_score: float | None = None,
    camera_motion: str | None = None,
) -> str:
    """Append the scores that Open-Sora was trained with to a prompt that is not cleaned yet.

    Values that are None, or named in the prompt already, are not appended. Scores have one decimal, as upstream
    (opensora/utils/inference_utils.py).

    Args:
      prompt: as the user wrote it.
      aesthetic_score: usually 4 to 7.
      motion_score: of optical flow, usually 0 to 20.
      camera_motion: such as "pan right".
    """
    suffixes = {
        "aesthetic score:": None if aesthetic_score is None else f"{aesthetic_score:.1f}",
        "motion score:": None if motion_score is None else f"{motion_score:.1f}",
        "camera motion:": camera_motion,
    }
    new = [f" {name} {value}." for name, value in suffixes.items() if value is not None and name not in prompt]
    return prompt + "".join(new)


def complete(caption: str, config: TextConfig) -> str:
    """The text that is encoded for a prompt, or for a caption in training: with the config's scores, and cleaned."""
    scores = config.aesthetic_score, config.motion_score, config.camera_motion
    return clean(compose_prompt(caption, *scores), config)


def clean(caption: str, config: TextConfig) -> str:
    """A caption or prompt, cleaned as the weights of its family were trained on them."""
    return clean_caption(caption) if config.cleaning == "web" else clean_lightly(caption)


def check_readable(prompts: Sequence[str], config: TextConfig) -> None:
    """Raise `ConfigError` for a prompt of which cleaning leaves nothing."""
    for prompt in prompts:
        if is_blank(clean(prompt, config)):
            raise ConfigError(f"nothing is left of the prompt {prompt!r} when it is cleaned; write it in English words")


def is_text(text: str) -> bool:
    """Whether a text can be encoded: undecodable bytes of a command line reach Python as surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | set(map(chr, range(0xFE00, 0xFE10)))
"""Characters that show nothing, although Unicode counts them among letters, marks and symbols."""


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or of blanks, control characters and characters without width."""
    return all(unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp") or c in INVISIBLE for c in text)


MAX_CHARACTERS = 4000
"""Of a caption that are looked at: far more than the 300 or 512 tokens of the networks hold, and few enough for
patterns whose time grows with the square of the length. Deviation: upstream has no limit."""


def clean_caption(caption: str) -> str:
    """Clean a caption as upstream does: twice, because the first pass uncovers what the second one removes."""
    return _clean_once(_clean_once(caption[:MAX_CHARACTERS]))


def clean_lightly(caption: str) -> str:
    """Clean a caption as Wan 2.1 and SkyReels-V2 do (Wan2.1 wan/modules/tokenizers.py, "whitespace").

    Broken characters are mended, HTML escapes are written out, and white space becomes single spaces; words, symbols
    and case are kept.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(caption[:MAX_CHARACTERS]))).split())


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

_HYPHENS = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)

# The order matters, within the tables and between them: each rule applies to the result of the rules before it.
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
        # References go to the two handlers below, as upstream: unlike `html.unescape`, they keep "&copy2" as it is.
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
    try:
        parser.feed(text)
        parser.close()
    except AssertionError:  # Python's parser gives up at some declarations, such as "<![<!["
        return text
    return "".join(parser.pieces)
