"""Cleaning and tokens of the second family, against the reference (goldens skyreels/text_cleaning, tokenizer_cases)."""

import json

import numpy as np
import pytest
from support.golden_data import GOLDEN

from pavdm_jax.models.tokenizer import Tokenizer
from pavdm_jax.text.captions import clean_lightly

SKYREELS = GOLDEN / "skyreels"
CLEANING = json.loads((SKYREELS / "text_cleaning.json").read_text())
TOKENS = json.loads((SKYREELS / "tokenizer_cases.json").read_text())
TOKENIZER = Tokenizer((SKYREELS / "checkpoints/SkyReels-V2-DF-tiny/google/umt5-xxl/spiece.model").read_bytes())


@pytest.mark.parametrize("case", CLEANING, ids=lambda case: repr(case["input"])[:24])
def test_cleaning_matches_the_reference(case):
    assert clean_lightly(case["input"]) == case["output"]


@pytest.mark.parametrize("case", TOKENS, ids=lambda case: f"{case['text'][:16]!r}-{case['max_length']}")
def test_tokens_match_the_reference(case):
    assert clean_lightly(case["text"]) == case["cleaned"]
    ids, lengths = TOKENIZER.tokenize([case["cleaned"]], case["max_length"])
    np.testing.assert_array_equal(ids[0], case["input_ids"])
    np.testing.assert_array_equal(np.arange(case["max_length"]) < lengths[0], case["attention_mask"])


def test_special_tokens_in_a_text_have_their_own_ids():
    """umT5's, which has a beginning of text, and another number for what is unknown than T5."""
    ids, _ = TOKENIZER.tokenize(["<s>a</s><unk><pad>"], 7)
    assert [i for i in ids[0] if i < 4] == [2, 1, 3, 0, 1]
