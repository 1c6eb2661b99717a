"""Damaged and hostile input of every kind: each case is read well or refused with one line, and soon.

A case is a whole input that a seeded mutation has changed. The nightly run has more than 2,000 of them, CI some of each
kind.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import imageio.v3 as iio
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.nightly import IS_NIGHT
from support.tiny_model import PROMPT, SHAPES, TINY, tiny_model

from pavdm_jax import make_video, train
from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.config_json import to_json
from pavdm_jax.checkpoints.fingerprint import params_fingerprint
from pavdm_jax.checkpoints.load import load, load_run
from pavdm_jax.checkpoints.model_folder import open_model, save_model
from pavdm_jax.checkpoints.run_folder import check_base
from pavdm_jax.cli import exit_with
from pavdm_jax.conversion.sources import open_weights
from pavdm_jax.data.clips import open_clips
from pavdm_jax.data.config import ShapesData, VideoData
from pavdm_jax.data.encoder import Encoder
from pavdm_jax.data.latent_cache import LatentCache
from pavdm_jax.data.latent_writer import CacheOptions, write_cache
from pavdm_jax.data.manifest import index_files, read_manifest
from pavdm_jax.errors import ConfigError, MachineError
from pavdm_jax.generation.options import Options
from pavdm_jax.generation.positions import read_arrays, write_arrays
from pavdm_jax.generation.prompts_file import read_prompts_file
from pavdm_jax.generation.request import make_request
from pavdm_jax.models.model import PARTS, flatten
from pavdm_jax.text.captions import clean_caption
from pavdm_jax.training.config import Stage, TrainConfig, UniformDiffusion
from pavdm_jax.training.run_record import RECORD, check_claim, claim
from pavdm_jax.video.clips import probe, read_clip, read_video
from pavdm_jax.video.writer import VideoWriter

CASES = 250 if IS_NIGHT else 12
SECONDS = 20  # of a case, on a machine that does other things as well

STRANGE_TEXTS = ("", " ", "\0", "\x1b[31m", "9" * 5000, "[" * 5000, "\ud800", "é" * 300, "../..", "-1", "1e999", "NaN")
STRANGE_NUMBERS = (0, -1, 10**9, 2**63, 1e308, 5e-324, float("nan"), float("inf"), None, "", True, [], "x")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with a few bits, bytes or pieces changed, lost, doubled or added."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, len(changed) + 1))
        length = int(rng.integers(1, 40))
        kind = rng.integers(0, 6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length] * int(rng.integers(1, 4))
        elif kind == 4:
            changed[at : at + length] = rng.bytes(length)
        else:
            changed[at:at] = rng.choice(STRANGE_TEXTS).encode("utf-8", "surrogatepass")
    return bytes(changed)


def mutated_json(value, rng: np.random.Generator):
    """JSON values with one of them replaced by a strange one."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        return value | {str(name): mutated_json(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        return [*value[:at], mutated_json(value[at], rng), *value[at + 1 :]]
    return STRANGE_NUMBERS[rng.integers(len(STRANGE_NUMBERS))]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Whole inputs: a model's folder, adapters, a clip, pictures, a manifest, prompts, a position, weights."""
    folder = tmp_path_factory.mktemp("samples")
    save_model(folder / "model", tiny_model())
    adapters = lora.init_adapters(jax.random.key(0), flatten(tiny_model().params), ("qkv",), 2)
    adapters = {name: value for name, value in adapters.items() if name.startswith("stdit3/")}
    base = params_fingerprint(tiny_model().transformer)
    about = lora.Adapters(adapters, 1.0, base, "model", tiny_model().config)
    lora.save(folder / "lora.safetensors", about)
    frames = np.random.default_rng(0).integers(0, 256, (20, 16, 24, 3), dtype=np.uint8)
    with VideoWriter(folder / "clip.mp4", 24) as writer:
        writer.write(frames)
    for ending in ("png", "gif", "tiff", "jpeg", "webp"):
        iio.imwrite(folder / f"picture.{ending}", frames[0])
    (folder / "clips.csv").write_text('path,caption,start,end,fps\nclip.mp4,"a cat, a dog",0.1,0.6,24\nclip.mp4,a,,,\n')
    lines = [{"path": "clip.mp4", "caption": "a cat", "start": 0, "end": 0.5, "fps": 24}, {"path": "clip.mp4"}]
    (folder / "clips.jsonl").write_text("\n".join(json.dumps(line | {"caption": "a"}) for line in lines))
    (folder / "prompts.txt").write_text("# two\na red circle||clip.mp4\n\na blue square\n")
    (folder / "prompts.csv").write_text("prompt,start,seed,seconds,output\na,clip.mp4,3,1.5,a.mp4\nb,,,,\n")
    (folder / "prompts.jsonl").write_text('{"prompt": "a", "seed": 3, "seconds": 2}\n{"prompt": "b"}\n')
    write_arrays(folder / "position.npz", latents=frames.astype(np.float32), round=3, method="progressive")
    options = CacheOptions(caption_features=True)
    write_cache(open_clips(ShapesData(17, samples=2), SHAPES), Encoder(tiny_model(SHAPES)), folder / "latents", options)
    with claim(folder / "run", RUN):
        pass
    save_file({"a.weight": np.ones((3, 4), np.float32), "a.bias": np.ones(3, np.float32)}, folder / "w.safetensors")
    return folder


def captions(samples, tmp_path, rng):
    pieces = [
        "a red circle",
        "http://x.com/",
        "<b>",
        "&amp;",
        "#1234567",
        "1920x1080",
        "...",
        "(",
        "é",
        "\n",
        "<![",
        "@",
    ]
    clean_caption("".join(rng.choice(pieces, rng.integers(1, 3000))))


def prompts_files(samples, tmp_path, rng):
    name = rng.choice(["prompts.txt", "prompts.csv", "prompts.jsonl"])
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / name).write_bytes(mutated((samples / name).read_bytes(), rng))
    read_prompts_file(tmp_path / name)


def manifests(samples, tmp_path, rng):
    name = rng.choice(["clips.csv", "clips.jsonl"])
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / name).write_bytes(mutated((samples / name).read_bytes(), rng))
    read_manifest(tmp_path / name)


def pictures_and_clips(samples, tmp_path, rng):
    name = rng.choice(["clip.mp4", "picture.png", "picture.gif", "picture.tiff", "picture.jpeg", "picture.webp"])
    path = tmp_path / name
    path.write_bytes(mutated((samples / name).read_bytes(), rng))
    for read in (read_video, probe, lambda path: read_clip(path, 0.1, 24.0, 5, (16, 24))):
        try:
            read(str(path))
        except ConfigError as error:
            assert name in str(error)


def model_folders(samples, tmp_path, rng):
    folder = tmp_path / "model"
    folder.mkdir()
    for entry in (samples / "model").iterdir():
        (folder / entry.name).symlink_to(entry)
    name = rng.choice(["config.json", "parts.json", "spiece.model"])
    content = (samples / "model" / name).read_bytes()
    (folder / name).unlink()
    if name.endswith(".json") and rng.random() < 0.7:
        content = json.dumps(mutated_json(json.loads(content), rng)).encode()
    else:
        content = mutated(content, rng)
    (folder / name).write_bytes(content)
    open_model(folder, PARTS)
    load(folder, parts=())


def adapters(samples, tmp_path, rng):
    (tmp_path / "lora.safetensors").write_bytes(mutated((samples / "lora.safetensors").read_bytes(), rng))
    lora.apply(tiny_model(), tmp_path / "lora.safetensors")


def positions(samples, tmp_path, rng):
    (tmp_path / "position.npz").write_bytes(mutated((samples / "position.npz").read_bytes(), rng))
    read_arrays(tmp_path / "position.npz", "start again")


def weights(samples, tmp_path, rng):
    (tmp_path / "w.safetensors").write_bytes(mutated((samples / "w.safetensors").read_bytes(), rng))
    opened = open_weights(tmp_path / "w.safetensors")
    for name in opened.places:
        file, raw = opened.places[name]
        file.read(raw)


OPTIONS = [field.name for field in dataclasses.fields(Options)]


def options(samples, tmp_path, rng):
    values = [*STRANGE_NUMBERS, *STRANGE_TEXTS, 1, 2, 5, 0.5, "latent", "replacement", [1, 2], np.zeros(3), np.int32(4)]
    chosen = rng.choice(OPTIONS, rng.integers(1, 4), replace=False)
    make_request(TINY, PROMPT, **{str(name): values[rng.integers(len(values))] for name in chosen})


def command_lines(samples, tmp_path, rng):
    words = [
        "--frames",
        "--fps",
        "--seed",
        "--start",
        "-o",
        "--prompt-at",
        "--method",
        "--quiet",
        "--",
        "-",
        "--=",
        "=",
    ]
    words += ["a", "5", "-5", "nan", "inf", "\x1b", "\ud800", "x" * 5000, "--no-such", "--resume", "--gif=1"]
    make_video.read([str(word) for word in rng.choice(words, rng.integers(0, 7))])


def latents(samples, tmp_path, rng):
    folder = shutil.copytree(samples / "latents", tmp_path / "latents")
    name = rng.choice(["cache.json", "index.json", "shard-00000-of-00001.safetensors"])
    content = (folder / name).read_bytes()
    if name.endswith(".json") and rng.random() < 0.7:
        content = json.dumps(mutated_json(json.loads(content), rng)).encode()
    else:
        content = mutated(content, rng)
    (folder / name).write_bytes(content)
    cache = LatentCache(folder)
    for n in range(len(cache)):
        cache.latents(n, 0, 2), cache.features(n, 0), cache.about(n)


def run_records(samples, tmp_path, rng):
    content = (samples / "run" / RECORD).read_bytes()
    if rng.random() < 0.7:
        content = json.dumps(mutated_json(json.loads(content), rng)).encode()
    else:
        content = mutated(content, rng)
    (tmp_path / RECORD).write_bytes(content)
    check_claim(tmp_path, RUN)


def checkpoint_records(samples, tmp_path, rng):
    about = {"base": "demo", "fingerprints": {"vae": "0", "t5": "1"}, "model": to_json(TINY), "lora_alpha": 2.0}
    about = mutated_json(about | {"trained_with": "[]"}, rng)
    (tmp_path / "7" / "ema").mkdir(parents=True)
    (tmp_path / "7" / "about").mkdir()
    (tmp_path / "7" / "about" / "metadata").write_text(json.dumps(about))
    with contextlib.suppress(ConfigError):  # of weights that are not there
        load_run(tmp_path / "7", ["transformer"], None, np.float32)
    check_base(about, {"vae": "0", "t5": "1"}, tmp_path)


def indexes_of_manifests(samples, tmp_path, rng):
    shutil.copy(samples / "clip.mp4", tmp_path / "clip.mp4")
    (tmp_path / "clips.csv").write_text("path,caption\nclip.mp4,a\n")
    kept_in = tmp_path / "clips.index.json"
    with contextlib.redirect_stderr(io.StringIO()):  # progress, and what is skipped
        index_files(tmp_path / "clips.csv", [str(tmp_path / "clip.mp4")])
        kept_in.write_text(json.dumps(mutated_json(json.loads(kept_in.read_text()), rng)))
        open_clips(VideoData(str(tmp_path / "clips.csv"), 17), SHAPES)


def options_of_training(samples, tmp_path, rng):
    names = ["seed", "steps", "batch-size", "mesh", "data.samples", "optimizer.learning-rate", "optimizer.clip-norm"]
    names += ["model.stdit3.mlp-ratio", "model.vae.spatial.layers-per-block", "model.window.chunk-size", "lora.rank"]
    values = [*map(str, STRANGE_NUMBERS), *STRANGE_TEXTS, "1", "4", "0.5", "data=2"]
    words = [f"--{rng.choice(names)}={values[rng.integers(len(values))]}" for _ in range(rng.integers(1, 4))]
    _, config = train.read(["--config", str(rng.choice(["demo_base", "demo_pa", "demo_vae"])), *words])
    with claim(tmp_path / "run", config):
        pass


RUN = TrainConfig(TINY, (Stage("base", UniformDiffusion(), VideoData("x.csv", 119), ("stdit3",), 6, 2),))

KINDS = (
    captions,
    prompts_files,
    manifests,
    pictures_and_clips,
    model_folders,
    adapters,
    positions,
    weights,
    options,
    command_lines,
    latents,
    run_records,
    checkpoint_records,
    indexes_of_manifests,
    options_of_training,
)


def run_case(kind, samples, folder, rng) -> int:
    """A case as a command that succeeds, unless the input is refused."""
    kind(samples, folder, rng)
    return 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damaged_input_is_read_or_refused_in_one_line(samples, tmp_path, capsys, kind):
    for case in range(CASES):
        folder = tmp_path / str(case)
        folder.mkdir()
        began, rng = time.monotonic(), np.random.default_rng([KINDS.index(kind), case])
        with pytest.raises(SystemExit) as ended:
            try:
                exit_with(functools.partial(run_case, kind, samples, folder, rng), "interrupted")
            except Exception as error:
                raise AssertionError(f"case {case} of {kind.__name__}: {type(error).__name__}: {error}") from error
        code, said = ended.value.code, capsys.readouterr().err
        one_line = said.startswith("error: ") and said.count("\n") == 1 and 10 < len(said) < 5000
        assert (code, said) == (0, "") or (code == 2 and one_line), f"case {case}: {code} {said[:200]}"
        assert time.monotonic() - began < SECONDS, f"case {case} took {time.monotonic() - began:.0f} s"


def test_an_archive_of_more_than_arrays_is_damaged(samples, tmp_path):
    path = tmp_path / "position.npz"
    shutil.copy(samples / "position.npz", path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "by hand")
    with pytest.raises(ConfigError, match=r"holds more than arrays\); start again"):
        read_arrays(path, "start again")


@pytest.mark.parametrize("number", [5, 24, 13])
def test_faults_of_the_machine_are_no_damage(samples, monkeypatch, number):
    """EIO, EMFILE, and, as a mistake of the user, EACCES."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ConfigError, match=os.strerror(number)) as raised:
        read_arrays(samples / "position.npz", "delete it")
    assert isinstance(raised.value, MachineError) == (number != 13) == ("delete it" not in str(raised.value))
