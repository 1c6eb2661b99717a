"""From a request to frames, with tiny random models of both families.

Lengths, batches, seeds, streams, resuming, start clips, timelines, compilations.
"""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from support.nightly import at_night
from support.tiny_model import CHUNK, PROMPT, TINY, tiny_model

from pavdm_jax import generate, generate_stream
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import AnyModelConfig
from pavdm_jax.generation.programs import decode_frames, decode_next_frames, run_segment
from pavdm_jax.generation.progressive import make_plan
from pavdm_jax.generation.request import make_request
from pavdm_jax.geometry import decoded_frames
from pavdm_jax.models.model import Model
from pavdm_jax.wan_config import tiny_wan

PROGRAMS = run_segment, decode_frames, decode_next_frames


@dataclass(frozen=True)
class Family:
    """A tiny model, and what the tests ask of it."""

    config: AnyModelConfig

    @property
    def model(self) -> Model:
        return tiny_model(self.config)

    def chunks(self, count: int) -> int:
        """Pixel frames of the first chunks of a video."""
        return decoded_frames(count * self.config.window.chunk_size, self.config.vae)

    def video(self, prompt=PROMPT, frames=None, **options):
        return generate(self.model, prompt, self.chunks(3) if frames is None else frames, **options)

    def stream(self, prompt, frames, **options):
        return generate_stream(self.model, prompt, frames, **options)


@pytest.fixture(params=[TINY, *at_night(tiny_wan())], ids=["open_sora", "wan"])
def family(request):
    return Family(request.param)


@pytest.mark.parametrize("frames", [1, CHUNK, CHUNK + 1, 82])
def test_any_number_of_frames_is_made_exactly(family, frames):
    made = family.video(frames=frames)
    assert made.shape == (frames, 16, 24, 3)
    assert made.dtype == np.uint8


def test_seconds_are_frames_at_the_rate(family):
    assert len(generate(family.model, PROMPT, seconds=1.5, fps=12)) == 18


def test_one_compiled_program_serves_every_length_and_prompt(family):
    """The first segment of a video, too, whose window comes from another program than those of the later ones."""
    for program in PROGRAMS:
        program.clear_cache()
    family.video()
    before = tuple(program._cache_size() for program in PROGRAMS)
    assert run_segment._cache_size() == 1
    family.video("a small blue square bounces fast", frames=family.chunks(7))
    family.video(frames=2, seed=5, guidance_scale=2.0)
    assert tuple(program._cache_size() for program in PROGRAMS) == before


def test_a_longer_video_only_changes_the_frames_near_the_end(family):
    """Chunks that have left the window before it begins to shrink know nothing of the length."""
    short, long = family.video(frames=family.chunks(6)), family.video(frames=family.chunks(9))
    window = family.config.window
    alike = family.chunks(6 - window.noisy_chunks + 1)
    np.testing.assert_array_equal(short[:alike], long[:alike])


def test_the_seed_decides_and_the_batch_does_not(family):
    alone = family.video(seed=4)
    batch = family.video([PROMPT, "a large green triangle moves right"], seed=[3, 4])
    assert batch.shape == (2, family.chunks(3), 16, 24, 3)
    np.testing.assert_array_equal(alone, family.video(seed=4))
    assert np.abs(family.video(seed=5).astype(int) - alone).max() > 0
    second = family.video("a large green triangle moves right", seed=4)
    assert np.abs(batch[1].astype(int) - second).max() <= 1  # other batch sizes round differently


def test_samples_have_consecutive_seeds(family):
    samples = family.video(seed=3, samples=2)
    assert samples.shape[0] == 2
    assert np.abs(samples[1].astype(int) - family.video(seed=4)).max() <= 1


@pytest.mark.parametrize("segment", [1, 3, 16])
def test_the_segment_length_changes_nothing(family, segment):
    usual, other = (family.video(frames=family.chunks(5), segment=length) for length in (2, segment))
    np.testing.assert_array_equal(usual, other)


def test_a_stream_yields_chunks_and_goes_on_from_a_saved_position(family):
    whole = family.video(frames=family.chunks(6))
    stream = family.stream(PROMPT, family.chunks(6))
    first = []
    while len(first) < 2:
        first += stream.advance()
    saved = stream.save()
    again = family.stream(PROMPT, family.chunks(6))
    again.restore(saved)
    rest = list(again)
    lengths = [family.chunks(number + 1) - family.chunks(number) for number in range(6)]
    assert [chunk.shape for chunk in first + rest] == [(1, length, 16, 24, 3) for length in lengths]
    np.testing.assert_array_equal(np.concatenate(first + rest, axis=1)[0], whole)


def test_a_position_taken_between_two_frames_of_one_segment_loses_nothing(family):
    whole = family.video(frames=family.chunks(6), segment=4)
    stream = family.stream(PROMPT, family.chunks(6), segment=4)
    chunks = iter(stream)
    first = next(chunks)
    saved = stream.save()
    kept = {name: array.copy() for name, array in saved.items()}
    list(chunks)
    jax.tree.map(np.testing.assert_array_equal, saved, kept)
    again = family.stream(PROMPT, family.chunks(6), segment=4)
    again.restore(saved)
    np.testing.assert_array_equal(np.concatenate([first, *again], axis=1)[0], whole)


def test_a_position_of_another_size_is_refused(family):
    saved = family.stream(PROMPT, CHUNK).save()
    other = family.stream(PROMPT, CHUNK, height=32)
    with pytest.raises(ConfigError, match="window of shape"):
        other.restore(saved)


def test_an_endless_stream_starts_like_a_long_video(family):
    endless = iter(family.stream(PROMPT, None))
    made = np.concatenate([next(endless) for _ in range(3)], axis=1)[0]
    np.testing.assert_array_equal(made, family.video(frames=family.chunks(9))[: family.chunks(3)])


def test_a_start_clip_is_kept_exactly_and_continued(family):
    rng = np.random.default_rng(0)
    start = rng.integers(0, 256, (CHUNK + 6, 16, 24, 3), dtype=np.uint8)
    made = family.video(frames=len(start) + CHUNK + 2, start=start)
    assert len(made) == len(start) + CHUNK + 2
    np.testing.assert_array_equal(made[: len(start)], start)
    other = family.video(frames=len(start) + CHUNK + 2, start=start[:, ::-1].copy())
    assert np.abs(made[len(start) :].astype(int) - other[len(start) :]).max() > 0


def test_an_image_is_held_for_a_chunk(family):
    image = np.random.default_rng(1).integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)
    made = family.video(frames=family.chunks(2), start=image)
    np.testing.assert_array_equal(made[:CHUNK], np.repeat(image, CHUNK, axis=0))


def test_a_timeline_changes_the_prompt_from_its_second_on(family):
    other = "a large green triangle moves right"
    change = family.chunks(4) / 24
    request = make_request(family.config, [(0, PROMPT), (change, other)], frames=family.chunks(8))
    assert make_plan(request).prompt_starts == (0, 4)
    prompts = PROMPT, [(0, PROMPT), (change, other)]
    plain, timeline = (family.video(prompt, frames=family.chunks(8)) for prompt in prompts)
    noisy = family.config.window.noisy_chunks
    before = family.chunks(4 - noisy + 1)  # chunks that have left the window before the first of the new prompt enters
    assert np.abs(plain[:before].astype(int) - timeline[:before]).max() <= 1
    assert np.abs(plain[family.chunks(4) :].astype(int) - timeline[family.chunks(4) :]).max() > 1


def test_a_timeline_of_equal_prompts_is_a_plain_prompt(family):
    timeline = family.video([(0, PROMPT), (1, PROMPT)], frames=family.chunks(4))
    assert np.abs(timeline.astype(int) - family.video(frames=family.chunks(4))).max() <= 1


def test_the_position_does_not_grow_while_a_video_is_made(family):
    stream = family.stream(PROMPT, family.chunks(30))
    sizes = []
    while not stream.done:
        stream.advance()
        sizes.append(sum(array.nbytes for array in stream.save().values()))
    assert len(set(sizes[len(sizes) // 2 :])) == 1  # a causal VAE needs some seconds of latents, no more


@pytest.mark.parametrize("method", ["replacement", "noisy-replacement"])
def test_the_baselines_make_videos_clip_by_clip(family, method):
    made = family.video(frames=family.chunks(6) + 4, method=method, seed=2)
    assert made.shape[0] == family.chunks(6) + 4
    # Of 106 frames three chunks are in the first clip, then two in each; of 121, 97 are in the first clip.
    stream = family.stream(PROMPT, family.chunks(6) + 4, method=method, seed=2)
    assert (stream.unit, stream.num_rounds) == ("clip", 3 if family.config is TINY else 2)
    first = stream.advance()
    again = family.stream(PROMPT, family.chunks(6) + 4, method=method, seed=2)
    again.restore(stream.save())
    np.testing.assert_array_equal(np.concatenate([*first, *again], axis=1)[0], made)
    start = np.random.default_rng(0).integers(0, 256, (CHUNK, 16, 24, 3), dtype=np.uint8)
    continued = family.video(frames=family.chunks(3), method=method, start=start)
    np.testing.assert_array_equal(continued[:CHUNK], start)


def test_the_methods_make_different_videos(family):
    methods = ("progressive", "replacement", "noisy-replacement")
    made = {family.video(frames=family.chunks(7), method=method).tobytes() for method in methods}
    assert len(made) == len(methods)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "   "}, "prompt is empty"),
        ({"prompt": []}, "no prompt"),
        ({"prompt": "\u200b\u200d\ufe0f\x1b"}, "prompt is empty"),
        ({"negative_prompt": "\u200b"}, "negative prompt is empty"),
        ({"prompt": [5]}, "a timeline is a list of seconds with their prompts"),
        ({"prompt": [PROMPT, []]}, "a timeline is a list of seconds with their prompts"),
        ({"prompt": [(0, PROMPT), (1, 5)]}, "a timeline is a list of seconds with their prompts"),
        ({"prompt": [("x", PROMPT)]}, "a timeline is a list of seconds with their prompts"),
        ({"prompt": [(0, PROMPT, 1)]}, "a timeline is a list of seconds with their prompts"),
        ({"prompt": [(0, PROMPT), PROMPT]}, "a timeline is a list of seconds with their prompts"),
        ({"frames": 0}, "frames 0"),
        ({"frames": -5}, "frames -5"),
        ({"frames": 10**20}, "frames 1000"),
        ({"seconds": 0.0}, "seconds 0"),
        ({"seconds": float("nan")}, "seconds nan"),
        ({"seconds": float("inf")}, "seconds inf"),
        ({"fps": float("inf")}, "fps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"seed": 2**40}, "seeds must be"),
        ({"prompt": "caf\udce9"}, "UTF-8"),
        ({"prompt": "漢字"}, "nothing is left"),
        ({"prompt": None}, "no prompt"),
        ({"prompt": [(0.0, PROMPT), (99.0, PROMPT)]}, "after the end"),
        ({"prompt": [(0.0, PROMPT), (float("inf"), PROMPT)]}, "cannot reach"),
        ({"prompt": [(float("nan"), PROMPT)]}, "a timeline is a list of seconds with their prompts"),
        ({"aspect_ratio": "1:1"}, "needs a resolution"),
        ({"steps": 7}, "use 6 or 9"),
        ({"height": 15}, "16"),
        ({"fps": -1.0}, "fps"),
        ({"samples": 0}, "samples"),
        ({"samples": 10**9}, "samples"),  # filled the memory
        ({"segment": 0}, "segment"),
        ({"method": "magic"}, "use progressive"),
        ({"method": "replacement", "prompt": [(0.0, PROMPT), (0.1, PROMPT)]}, "takes one prompt"),
        ({"segment": 10**9}, "segment"),
        ({"dtype": "float16"}, "bfloat16"),
        ({"resolution": "999p"}, "999p"),
        ({"start": "missing.mp4"}, "missing.mp4"),
        ({"start": np.zeros((5, 16, 24, 3), np.uint8)}, "5 frames"),
        ({"start": np.zeros((17, 16, 24, 3), np.uint8), "frames": 17}, "ask for more"),
        ({"start": np.zeros((17, 16, 24, 3), np.float32)}, "uint8"),
        ({"guidence_scale": 1.0}, "did you mean guidance_scale"),
        ({"prompt": [(1.0, PROMPT)]}, "begin at second 0"),
        ({"prompt": [(0.0, PROMPT), (0.0, PROMPT)]}, "must rise"),
        ({"seed": [1, 2]}, "2 seeds"),
        ({"start": [None]}, "start"),
        ({"negative_prompt": [5], "guidance_scale": 2.0}, "negative_prompt"),
    ],
)
def test_mistakes_are_one_clear_line(options, message):
    options = {"prompt": PROMPT, "frames": CHUNK, **options}
    with pytest.raises(ConfigError, match=message) as caught:
        generate(tiny_model(), options.pop("prompt"), **options)
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_told():
    with pytest.raises(ConfigError, match=r"needs a model as pavdm_jax\.load returns it, not 'demo'"):
        generate("demo", PROMPT)
    model = tiny_model()
    with pytest.raises(ConfigError, match="loaded without its transformer; load it without `parts`"):
        generate(model.replace(params={"vae": model.params["vae"], "t5": model.params["t5"]}), PROMPT)
