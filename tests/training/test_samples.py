"""Videos that a training makes on its way are those of the same prompts, seed and method."""

import numpy as np
import pytest
from support.tiny_model import PROMPT, tiny_model

from pavdm_jax import generate
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import SampleConfig
from pavdm_jax.training.samples import sample_videos
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import VideoWriter


@pytest.mark.parametrize(("method", "dtype"), [("progressive", "bfloat16"), ("replacement", "float32")])
def test_samples_are_videos_of_their_method_in_the_precision_of_the_training(tmp_path, method, dtype):
    prompts = (PROMPT, "a blue square")
    gifs = sample_videos(tiny_model(), SampleConfig(5, prompts, 20, seed=3, method=method), dtype, tmp_path, 5)
    assert [gif.exists() for gif in gifs] == [True, True]
    for number, prompt in enumerate(prompts):
        with VideoWriter(tmp_path / "same.mp4", 24) as writer:
            writer.write(generate(tiny_model(), prompt, 20, seed=3, method=method, dtype=dtype))
        made = read_video(tmp_path / f"0000005-{number}.mp4")
        np.testing.assert_array_equal(made, read_video(tmp_path / "same.mp4"))


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="method 'frozen' is not known"):
        SampleConfig(method="frozen")
