"""`pavdm redo`: the beginning of a video is kept bit for bit, the rest is made again with another seed or prompt."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from support.command_line import mistake
from support.tiny_model import CHUNK, PROMPT, tiny_model

from pavdm_jax import make_video, redo
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import save_model
from pavdm_jax.generation.progressive import ProgressiveStream
from pavdm_jax.video.clips import read_video
from pavdm_jax.video.writer import VideoWriter, read_comment

FPS = 24.0
FRAMES = 8 * CHUNK
OTHER = "a small blue square bounces fast"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, tiny_model())
    return str(path)


def make(checkpoint, output, *arguments):
    given = ["--checkpoint", checkpoint, "--frames", FRAMES, "--quiet", "--output", output, *arguments]
    assert make_video.run(make_video.read([str(a) for a in given])) == 0
    return output


def redone(checkpoint, video, *arguments):
    given = [video, "--checkpoint", checkpoint, "--quiet", *arguments]
    assert redo.run(redo.read([str(a) for a in given])) == 0
    return video.with_name(f"{video.stem}-redo.mp4")


def packets(path):
    """The encoded frames of a video, as they are stored."""
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(video=0) if packet.size]


@pytest.fixture(scope="module")
def video(checkpoint, tmp_path_factory):
    return make(checkpoint, tmp_path_factory.mktemp("videos") / "v.mp4", PROMPT)


def interrupted_at(call):
    """`ProgressiveStream.advance`, in which Ctrl-C arrives in one of the calls."""
    advance, rounds = ProgressiveStream.advance, []

    def interrupted(stream):
        rounds.append(stream.round)
        if len(rounds) == call:
            raise KeyboardInterrupt
        return advance(stream)

    return interrupted


def kept_frames(path):
    return json.loads(read_comment(path))["redone"][-1]["at_frame"]


def test_with_its_own_seed_a_video_comes_out_the_same(checkpoint, video):
    same = redone(checkpoint, video, "--from", 2, "--seed", 0)
    assert kept_frames(same) == 4 * CHUNK
    assert packets(same) == packets(video)


def test_another_seed_changes_what_comes_after_the_second(checkpoint, video):
    first, second = packets(video), packets(redone(checkpoint, video, "--from", 2, "--seed", 5))
    assert len(second) == FRAMES
    assert second[: 4 * CHUNK] == first[: 4 * CHUNK]
    assert second[-CHUNK:] != first[-CHUNK:]
    old, new = read_video(video), read_video(video.with_name("v-redo.mp4"))
    np.testing.assert_array_equal(old[: 4 * CHUNK], new[: 4 * CHUNK])


def test_another_prompt_changes_what_comes_after_the_second(checkpoint, video):
    path = redone(checkpoint, video, "--from", 1.5, "--prompt", OTHER)
    assert packets(path)[: kept_frames(path)] == packets(video)[: kept_frames(path)]
    assert packets(path)[-CHUNK:] != packets(video)[-CHUNK:]


@pytest.mark.parametrize(
    "options", [("--noisy-chunks", 5, "--steps", 5), ("--method", "replacement")], ids=["progressive", "replacement"]
)
def test_a_video_is_made_longer_as_if_it_had_been_asked_for(checkpoint, tmp_path, options):
    """Where no second is given, from where the window was last full; what was shown before is not encoded again."""
    short = make(checkpoint, tmp_path / "v.mp4", PROMPT, *options)
    long = make(checkpoint, tmp_path / "long.mp4", PROMPT, *options, "--frames", 2 * FRAMES)
    longer = redone(checkpoint, short, "--seconds", 2 * FRAMES / FPS)
    assert packets(longer) == packets(long)
    assert json.loads(read_comment(longer)) == json.loads(read_comment(long)) | {"redone": []}
    again = redone(checkpoint, longer, "--seed", 5, "--from", 5)
    assert packets(again)[: 5 * 24] == packets(long)[: 5 * 24] and packets(again) != packets(long)
    other = redone(checkpoint, short, "--seconds", 2 * FRAMES / FPS, "--from", 1, "--prompt", OTHER)
    assert len(packets(other)) == 2 * FRAMES and packets(other) != packets(long)


@pytest.mark.parametrize(("second", "option"), [(0, ("--seed", 0)), (3, ("--prompt", OTHER))])
def test_what_is_redone_can_be_redone(checkpoint, video, second, option):
    """From before the place of the first one on, too: then only the beginning is that of both."""
    once = redone(checkpoint, video, "--from", 2, "--prompt", OTHER)
    twice = redone(checkpoint, once, "--from", second, *option)
    assert (packets(twice) == packets(once)) == (second == 3)
    assert kept_frames(twice) == {0: 0, 3: 6 * CHUNK}[second]
    history = [change["prompt"] for change in json.loads(read_comment(twice))["redone"]]
    assert history == {0: [None], 3: [OTHER, OTHER]}[second]


def test_a_change_that_is_left_out_takes_its_seed_with_it(checkpoint, video):
    """From before the second seed's place on the first one holds again."""
    once = redone(checkpoint, video, "--from", 2, "--seed", 5)
    both = redone(checkpoint, once, "--from", 2, "--prompt", OTHER)
    assert [(change["seed_before"], change["seed"]) for change in json.loads(read_comment(both))["redone"]] == [(0, 0)]
    assert packets(both) == packets(redone(checkpoint, video, "--from", 2, "--prompt", OTHER))


@pytest.mark.parametrize("name", ["demo", "demo-distilled"])
def test_an_embedded_model_is_found_by_its_name_in_the_video(tmp_path, monkeypatch, name):
    model = tiny_model()
    save_model(tmp_path / "model", model.replace(config=replace(model.config, name=name)))
    video = make(tmp_path / "model", tmp_path / "v.mp4", PROMPT)
    loaded = []

    def small(path, *arguments, **options):  # the tiny model in its place, which takes less time
        loaded.append(path)
        return load(str(tmp_path / "model"), *arguments, **options)

    monkeypatch.setattr("pavdm_jax.checkpoints.load.load", small)
    assert redo.run(redo.read([str(video), "--from", "1", "--seed", "5", "--quiet"])) == 0
    assert set(loaded) == {name}


def test_a_kill_while_positions_are_moved_loses_none(checkpoint, tmp_path, monkeypatch):
    whole = make(checkpoint, tmp_path / "v.mp4", PROMPT)
    names = sorted(path.name for path in (tmp_path / "v.states").iterdir())
    whole.unlink()
    (tmp_path / "v.states" / "00009999.npz").touch()  # of an older video
    replace_file, moved = Path.replace, []

    def killed(path, target):
        if path.parent.name == "v.partial.states" and path.suffix == ".npz":
            moved.append(path.name)
            if len(moved) == 3:
                raise SystemExit
        return replace_file(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(SystemExit):
            make(checkpoint, whole, PROMPT)
    assert len(list((tmp_path / "v.states").iterdir())) == 2
    make(checkpoint, whole, PROMPT, "--resume")
    assert sorted(path.name for path in (tmp_path / "v.states").iterdir()) == names
    assert {path.name for path in tmp_path.iterdir()} == {"v.mp4", "v.states"}


def test_what_is_not_ours_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "v.states").mkdir()
    (tmp_path / "v.states" / "thesis.txt").write_text("mine")
    make(checkpoint, tmp_path / "v.mp4", PROMPT)
    make(checkpoint, tmp_path / "v.mp4", PROMPT, "--no-states")
    assert [path.name for path in (tmp_path / "v.states").iterdir()] == ["thesis.txt"]


def test_a_run_that_is_broken_off_leaves_an_older_video_its_positions(checkpoint, tmp_path, monkeypatch):
    video = make(checkpoint, tmp_path / "v.mp4", PROMPT)
    with monkeypatch.context() as patch:
        patch.setattr(ProgressiveStream, "advance", interrupted_at(2))
        given = [PROMPT, "--checkpoint", checkpoint, "--frames", FRAMES, "-q", "-o", video, "--seed", 9]
        assert make_video.run(make_video.read(list(map(str, given)))) == 130
    redone(checkpoint, video, "--from", 2, "--seed", 5)


@pytest.mark.parametrize(
    "settings",
    [
        '{"fps": 0, "frames": 34, "crf": 18}',
        '{"fps": 24, "frames": 34}',
        '{"fps": 24, "frames": 40, "crf": 18, "redone": [1]}',
        '{"fps": 24, "frames": 40, "crf": 18, "redone": [{"at_frame": "x"}]}',
        '{"fps": 24, "frames": "x", "crf": 18}',
        '{"fps": 24, "frames": 40, "crf": 18}',  # without weights
        "[" * 9999,
    ],
)
def test_comments_of_others_are_one_line(tmp_path, monkeypatch, capsys, settings):
    with VideoWriter(tmp_path / "v.mp4", FPS, comment=settings) as writer:
        writer.write(np.zeros((40, 16, 24, 3), np.uint8))
    assert "was not made by" in mistake(capsys, monkeypatch, "redo", tmp_path / "v.mp4", "--from", 1, "--seed", 5)[1]


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "replacement", "--steps", 3],
        ["--schedule", "no-chunks", "--noisy-chunks", 5, "--steps", 5],
        ["--prompt-at", 2, OTHER, "--negative-prompt", "a triangle", "--motion-score", 4],
    ],
    ids=["replacement", "no chunks", "timeline"],
)
def test_all_that_was_asked_for_is_kept(checkpoint, tmp_path, options):
    path = make(checkpoint, tmp_path / "v.mp4", PROMPT, *options)
    assert packets(redone(checkpoint, path, "--from", 2, "--seed", 0)) == packets(path)


def test_a_start_clip_need_not_be_given_again(checkpoint, video, tmp_path):
    path = make(checkpoint, tmp_path / "long.mp4", PROMPT, "--start", video, "--frames", 12 * CHUNK)
    same = redone(checkpoint, path, "--from", 5, "--seed", 0)
    assert packets(same) == packets(path)
    settings = [json.loads(read_comment(file)) for file in (path, same)]
    assert settings[0]["start"] == settings[1]["start"]


def test_a_sample_of_a_batch_can_be_redone(checkpoint, tmp_path):
    make(checkpoint, tmp_path / "v.mp4", PROMPT, "--samples", 2, "--batch-size", 2)
    second = tmp_path / "v-002.mp4"
    same = redone(checkpoint, second, "--from", 2, "--seed", 1)
    assert packets(same)[: 4 * CHUNK] == packets(second)[: 4 * CHUNK]
    # A batch of another size rounds differently.
    assert np.abs(read_video(same).astype(int) - read_video(second)).max() <= 8


def test_a_replacement_takes_another_prompt(checkpoint, tmp_path):
    path = make(checkpoint, tmp_path / "v.mp4", PROMPT, "--method", "replacement", "--steps", 3)
    other = redone(checkpoint, path, "--from", 2, "--prompt", OTHER)
    assert packets(other)[-CHUNK:] != packets(path)[-CHUNK:]


def test_an_interrupted_redo_goes_on(checkpoint, video, monkeypatch):
    whole = packets(redone(checkpoint, video, "--from", 2, "--prompt", OTHER))
    monkeypatch.setattr(ProgressiveStream, "advance", interrupted_at(2))
    given = [str(video), "--from", "2", "--prompt", OTHER, "--checkpoint", checkpoint, "--quiet"]
    assert redo.run(redo.read(given)) == 130
    assert redo.run(redo.read([*given, "--resume"])) == 0
    assert packets(video.with_name("v-redo.mp4")) == whole


def test_no_positions_are_kept_where_none_are_wanted(checkpoint, tmp_path):
    make(checkpoint, tmp_path / "v.mp4", PROMPT, "--no-states")
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing would be different"),
        (["--seconds", "5"], "--seconds 5 is no longer than the video, which has 5.66667 s"),
        (["--seconds", "9", "--from", "5.2"], "lies in the last window of v.mp4"),
        (["--seed", "-1"], "--seed must be"),
        (["--prompt", " "], "--prompt is empty"),
        (["--seed", "5", "--from", "99"], "not within the video, which has 5.66667 s"),
        (["--seed", "5", "--from", "-1"], "not within the video"),
        (["--seed", "5", "--from", "5.65"], "redo the video from an earlier second"),
        (["--seed", "5", "--from", "3"], "is in the window at second 3, so that another --seed would change nothing"),
        (["--seed", "5", "--output", "v.mp4"], "is the video itself"),
        (["--seed", "5", "--gif"], "v-redo.gif"),
        (["--seed", "5", "--checkpoint", "demo"], "demo is not the model that made"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(checkpoint, video, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(video.parent)
    arguments = arguments if "--from" in arguments else ["--from", 2, *arguments]
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", checkpoint]
    (video.parent / "v-redo.gif").mkdir(exist_ok=True)  # a folder, where the GIF would be
    before = video.read_bytes()
    code, line = mistake(capsys, monkeypatch, "redo", "v.mp4", *arguments)
    assert (code, video.read_bytes()) == (2, before)
    assert message in line


def test_other_videos_cannot_be_redone(checkpoint, video, tmp_path, monkeypatch, capsys):
    arguments = ["--from", 1, "--seed", 5, "--checkpoint", checkpoint]
    assert "there is no video" in mistake(capsys, monkeypatch, "redo", tmp_path / "absent.mp4", *arguments)[1]
    foreign = tmp_path / "foreign.mp4"
    with VideoWriter(foreign, FPS) as writer:
        writer.write(np.zeros((40, 16, 24, 3), np.uint8))
    assert "was not made by" in mistake(capsys, monkeypatch, "redo", foreign, *arguments)[1]
    alone = tmp_path / "alone.mp4"
    alone.write_bytes(video.read_bytes())
    assert "nothing is kept in" in mistake(capsys, monkeypatch, "redo", alone, *arguments)[1]
    other = make(checkpoint, tmp_path / "other.mp4", OTHER)
    other.write_bytes(video.read_bytes())
    assert "belongs to another video" in mistake(capsys, monkeypatch, "redo", other, *arguments)[1]
    (kept,) = (path for path in (tmp_path / "other.states").iterdir() if path.stem == f"{CHUNK * 4:08d}")
    kept.write_bytes(kept.read_bytes()[:500])
    assert "cannot be read" in mistake(capsys, monkeypatch, "redo", other, "--from", 2, *arguments[2:])[1]
