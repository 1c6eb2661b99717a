"""Caption cleaning and tokens against the reference (golden text_cleaning, tokenizer), prompts, and a tokenizer of our
own."""

import copy
import functools
import json
import pickle

import jax
import numpy as np
import pytest
from support.golden_data import GOLDEN

from pavdm_jax.errors import ConfigError
from pavdm_jax.models.tokenizer import Tokenizer, train_tokenizer
from pavdm_jax.text.captions import MAX_CHARACTERS, _visible_text, clean_caption, compose_prompt

CLEANING = json.loads((GOLDEN / "text_cleaning.json").read_text())
TOKENS = json.loads((GOLDEN / "tokenizer.json").read_text())
CAPTIONS = [
    f"a {size} {colour} {shape} moves {way}"
    for size in ("small", "large")
    for colour in ("red", "green", "blue")
    for shape in ("circle", "square")
    for way in ("left", "right")
]


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer((GOLDEN / "spiece.model").read_bytes())


@functools.cache
def trained() -> bytes:
    return train_tokenizer(CAPTIONS, vocab_size=60)


@pytest.mark.parametrize("case", CLEANING, ids=lambda case: repr(case["input"])[:24])
def test_cleaning_matches_the_reference(case):
    assert clean_caption(case["input"]) == case["output"]


def test_hidden_markup_is_not_text():
    assert (
        _visible_text("a<!-- no --><script>no</script><br/>b<style>no</style><rt>no</rt> &lt;c&gt; &#65;&foo;")
        == "ab <c> A&foo"
    )


def test_markup_that_never_ends_hides_only_its_own_content():
    assert _visible_text("a</script><b>b</i>c<template>hidden<rt>x</template>d") == "abcd"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "a dog"),
        ({"aesthetic_score": 6.5}, "a dog aesthetic score: 6.5."),
        ({"motion_score": 10}, "a dog motion score: 10.0."),
        (
            {"aesthetic_score": 6.5, "motion_score": 4.25, "camera_motion": "pan right"},
            "a dog aesthetic score: 6.5. motion score: 4.2. camera motion: pan right.",
        ),
        ({"aesthetic_score": 0}, "a dog aesthetic score: 0.0."),
    ],
)
def test_prompt_composition(arguments, expected):
    assert compose_prompt("a dog", **arguments) == expected


def test_what_the_prompt_says_itself_is_not_appended():
    prompt = "a dog, aesthetic score: 5.0."
    assert compose_prompt(prompt, aesthetic_score=6.5, motion_score=3) == f"{prompt} motion score: 3.0."


def test_scores_survive_the_cleaning():
    composed = compose_prompt("A Dog", 6.5, 10, "pan right")
    assert clean_caption(composed) == "a dog aesthetic score: 6.5. motion score: 10.0. camera motion: pan right."


@pytest.mark.parametrize("case", TOKENS, ids=lambda case: repr(case["text"])[:24])
def test_tokens_match_the_reference(case):
    ids, lengths = tokenizer().tokenize([case["text"]], case["max_length"])
    assert ids.dtype == lengths.dtype == np.int32
    np.testing.assert_array_equal(ids[0], case["input_ids"])
    np.testing.assert_array_equal(np.arange(case["max_length"]) < lengths[0], case["attention_mask"])


def test_a_batch_is_its_rows():
    texts = [case["text"] for case in TOKENS]
    ids, lengths = tokenizer().tokenize(texts, 24)
    assert ids.shape == (len(texts), 24)
    assert lengths.shape == (len(texts),)
    np.testing.assert_array_equal(ids, [case["input_ids"] for case in TOKENS])
    np.testing.assert_array_equal(lengths, [sum(case["attention_mask"]) for case in TOKENS])


def test_the_empty_prompt_is_only_the_end():
    ids, lengths = tokenizer().tokenize([""], 5)
    assert ids.tolist() == [[1, 0, 0, 0, 0]]
    assert lengths.tolist() == [1]


@pytest.mark.parametrize(
    ("max_tokens", "expected"), [(6, [39, 39, 39, 1, 0, 0]), (4, [39, 39, 39, 1]), (3, [39, 39, 1]), (1, [1])]
)
def test_cutting_keeps_the_end(max_tokens, expected):
    ids, lengths = tokenizer().tokenize(["waves waves waves"], max_tokens)
    assert ids[0].tolist() == expected
    assert lengths[0] == min(max_tokens, 4)


def test_no_prompts_give_an_empty_batch():
    ids, lengths = tokenizer().tokenize([], 7)
    assert ids.shape == (0, 7)
    assert lengths.shape == (0,)


def test_user_errors_are_named():
    with pytest.raises(ConfigError, match="list of texts"):
        tokenizer().tokenize("a dog", 8)
    with pytest.raises(ConfigError, match="max_tokens must be at least 1"):
        tokenizer().tokenize(["a dog"], 0)
    with pytest.raises(ConfigError, match=r"no sentencepiece model.*spiece\.model"):
        Tokenizer(b"not a model")
    with pytest.raises(ConfigError, match="model is empty"):
        Tokenizer(b"")


def test_tokenizers_are_values():
    same, other = Tokenizer((GOLDEN / "spiece.model").read_bytes()), Tokenizer(trained())
    assert same == tokenizer()
    assert hash(same) == hash(tokenizer())
    assert other != same
    assert len(repr(same)) < 100
    for clone in (pickle.loads(pickle.dumps(same)), copy.deepcopy(same)):
        assert clone == same
        np.testing.assert_array_equal(clone.tokenize(["a dog"], 6)[0], same.tokenize(["a dog"], 6)[0])


def test_a_tokenizer_may_be_a_static_argument():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def size(tokenizer, x):
        traces.append(tokenizer)
        return x + tokenizer.vocab_size

    assert size(tokenizer(), 0) == 74
    assert size(Tokenizer(tokenizer().model_bytes), 0) == 74
    assert len(traces) == 1


def test_a_trained_tokenizer_spells_its_captions(capfd):
    model = Tokenizer(train_tokenizer(CAPTIONS, vocab_size=60))
    assert capfd.readouterr() == ("", "")
    assert model.vocab_size <= 60
    ids, lengths = model.tokenize(CAPTIONS, 40)
    assert (lengths < 40).all()
    assert ids.max() < model.vocab_size
    assert not (ids == 2).any()  # nothing unknown
    assert len({tuple(row) for row in ids}) == len(CAPTIONS)


def test_a_trained_tokenizer_gives_each_word_one_id_and_spells_the_others():
    model = Tokenizer(trained())
    _, lengths = model.tokenize(CAPTIONS, 40)
    assert lengths.tolist() == [len(caption.split()) + 1 for caption in CAPTIONS]
    ids, lengths = model.tokenize(["a blue meadow"], 40)
    assert lengths[0] > 4
    assert 2 in ids and len(set(ids[0, : lengths[0]])) > 5  # the captions have no "w"


def test_training_twice_gives_the_same_bytes():
    assert train_tokenizer(iter(CAPTIONS), vocab_size=60) == trained()


def test_training_errors_are_named():
    with pytest.raises(ConfigError, match="no captions"):
        train_tokenizer(["", "  "], vocab_size=60)
    with pytest.raises(ConfigError, match=r"vocab_size 22 cannot hold.*use at least 23"):
        train_tokenizer(CAPTIONS, vocab_size=22)
    assert Tokenizer(train_tokenizer(CAPTIONS, vocab_size=23)).vocab_size == 23


@pytest.mark.parametrize(
    "piece", ["1", "a", "a.", "1.", "a-", "<a", "<![", "<!--", "'", "http:", "\u00c3\u00a9", "1:11 "]
)
def test_long_captions_of_any_kind_end_soon(piece):
    """Time grows with the square of the length for some of them: minutes for 20,000 characters, without a limit."""
    caption = piece * 20_000
    assert len(clean_caption(caption)) <= 2 * MAX_CHARACTERS
    assert clean_caption("a red circle " + caption).startswith("a red circle")
