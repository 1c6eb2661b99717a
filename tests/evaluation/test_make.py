"""The videos of a comparison: made once, under the same names for all systems, by any number of processes."""

import json
import re
import subprocess

import pytest
from support.small_videos import gradient, write_video
from support.tiny_model import CHUNK, tiny_model

from pavdm_jax import evaluate
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import make
from pavdm_jax.evaluation.comparison import Comparison, System, read_comparison
from pavdm_jax.evaluation.held_out import held_out_prompts
from pavdm_jax.evaluation.made_by import _commit, made_by
from pavdm_jax.evaluation.score import ScoreConfig, score
from pavdm_jax.generation.prompts_file import PromptLine
from pavdm_jax.generation.recording import Recording

DEFINITION = """
from pavdm_jax.evaluation.comparison import Comparison, System

comparison = Comparison(
    systems=(System("plain"), System("stronger", "demo-distilled", options={"guidance_scale": 3.0})),
    prompts=("a red circle moves left", "a small blue square_moves"),
    frames=FRAMES,
)
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Runs `pavdm evaluate make` on the tiny model; the exit code and the folder.

    `run.loaded` are the names under which systems asked for it.
    """
    loaded = set()

    def load(path, *arguments, **named):
        loaded.add(path)
        return tiny_model()

    monkeypatch.setattr(make, "load", load)
    definition = tmp_path / "comparison.py"
    definition.write_text(DEFINITION.replace("FRAMES", str(CHUNK + 3)))

    def run(*options):
        with pytest.raises(SystemExit) as end:
            evaluate.main(["make", str(definition), "--output", str(tmp_path / "videos"), "--quiet", *options])
        return end.value.code, tmp_path / "videos"

    run.definition, run.folder, run.loaded = definition, tmp_path / "videos", loaded
    return run


def test_what_is_missing_is_made_and_the_rest_is_left_alone(made, capsys):
    code, folder = made("--share", "1/2")
    assert code == 0
    names = {"001-a-red-circle-moves-left-seed0.mp4", "002-a-small-blue-square-moves-seed0.mp4"}
    first = sorted(folder.rglob("*.mp4"))
    assert [path.parent.name for path in first] == ["plain", "stronger"]
    contents = {path: path.read_bytes() for path in first}
    assert made()[0] == 0
    for system in ("plain", "stronger"):
        assert {path.name for path in (folder / system).glob("*.mp4")} == names
    assert all(path.read_bytes() == content for path, content in contents.items())
    assert capsys.readouterr().out.count("is there") == 2

    assert made.loaded == {"demo", "demo-distilled"}
    alone = {path: path.read_bytes() for path in (folder / "plain").glob("*.mp4")}
    for path in alone:
        path.unlink()
    assert made()[0] == 0  # one after the other, and before by two calls
    assert {path: path.read_bytes() for path in alone} == alone

    said = json.loads((folder / "stronger" / "001-a-red-circle-moves-left-seed0.json").read_text())
    assert (said["system"], said["prompt"], said["seed"]) == ("stronger", "a red circle moves left", 0)
    assert said["settings"]["guidance_scale"] == 3
    assert said["seconds_of_computing"] >= 0
    assert said["made_by"] == made_by()


def test_seconds_of_computing_are_those_of_all_sittings(made, monkeypatch):
    assert made("--share", "1/4")[0] == 0
    (video,) = made.folder.rglob("*.mp4")
    beside = video.with_suffix(".json")
    alone = json.loads(beside.read_text())["seconds_of_computing"]
    contents = video.read_bytes()
    save = Recording._write

    def interrupted(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    def interrupted_after(seconds):
        video.unlink()
        beside.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(Recording, "_write", interrupted)
            assert made("--share", "1/4")[0] == 130
        said = json.loads(beside.read_text())
        beside.write_text(json.dumps(said | {"seconds_of_computing": seconds}))

    interrupted_after(1000.0)
    assert made("--share", "1/4")[0] == 0
    assert video.read_bytes() == contents
    assert 1000 < json.loads(beside.read_text())["seconds_of_computing"] < 1000 + 10 * alone + 60

    def killed(*arguments):
        raise SystemExit

    interrupted_after(1000.0)
    with monkeypatch.context() as patch:
        patch.setattr(Recording, "_write", killed)
        made("--share", "1/4")
    assert made("--share", "1/4")[0] == 0
    assert json.loads(beside.read_text())["seconds_of_computing"] is None

    interrupted_after(None)
    beside.unlink()  # as after a run that was killed
    assert made("--share", "1/4")[0] == 0
    assert json.loads(beside.read_text())["seconds_of_computing"] is None


def test_all_systems_are_given_the_start_clips_but_those_that_begin_with_the_text(made):
    text = made.definition.read_text()
    text = text.replace('"a red circle moves left", "a small blue square_moves"', "*LINES,").replace(
        'System("plain")', 'System("plain"), System("text", from_text=True)'
    )
    lines = f"LINES = held_out_starts(2, 0, 64, {CHUNK})\nfrom pavdm_jax.evaluation.comparison"
    imported = "from pavdm_jax.evaluation.held_out import held_out_starts\n"
    made.definition.write_text(imported + text.replace("from pavdm_jax.evaluation.comparison", lines, 1))
    assert made("--prompts", "1")[0] == 0
    said = {path.parent.name: json.loads(path.read_text()) for path in made.folder.rglob("*.json")}
    assert {name: of_system["settings"]["start_frames"] for name, of_system in said.items()} == {
        "plain": CHUNK,
        "text": 0,
        "stronger": CHUNK,
    }
    prompt = held_out_prompts(1, 0, 64)[0]
    assert {of_system["prompt"] for of_system in said.values()} == {prompt}


def test_the_commit_is_known_in_a_clone_only(tmp_path):
    assert _commit(tmp_path) is None
    somebody = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*somebody, "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    assert re.fullmatch("[0-9a-f]{12}", _commit(tmp_path) or "")


def test_systems_without_a_finished_model_are_named_in_one_line_and_left_out(made, capsys):
    definition = made.definition
    text = definition.read_text()
    (definition.parent / "begun" / "stages").mkdir(parents=True)
    begun = str(definition.parent / "begun")
    both = f'System("absent", "runs/none"), System("begun", "{begun}")'
    definition.write_text(text.replace("systems=(", f"systems=({both}, "))
    code, folder = made("--prompts", "1")
    assert code == 0
    expected = f"left out, because there is no finished model to load: absent (runs/none), begun ({begun})"
    assert capsys.readouterr().err.splitlines().count(expected) == 1
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.mp4"))
    assert found == [f"{system}/001-a-red-circle-moves-left-seed0.mp4" for system in ("plain", "stronger")]

    definition.write_text(re.sub(r"systems=\(.*\),\n", f"systems=({both}),\n", text))
    assert made()[0] == 2
    assert "error: no system of the comparison has a finished model to load: absent" in capsys.readouterr().err
    assert made("--prompts", "0")[0] == 2
    assert "--prompts must be at least 1, not 0" in capsys.readouterr().err


def test_some_of_the_systems_are_made(made, capsys):
    assert made("--systems", "stronger", "--prompts", "1")[0] == 0
    assert [path.parent.name for path in made.folder.rglob("*.mp4")] == ["stronger"]
    capsys.readouterr()
    assert made("--systems", "weaker")[0] == 2
    assert capsys.readouterr().err == "error: --systems weaker is none of the comparison, which has plain, stronger\n"


def test_a_system_waits_for_its_adapters(made, capsys):
    text = made.definition.read_text().replace('System("plain")', 'System("plain", lora="runs/absent")')
    made.definition.write_text(text)
    assert made("--prompts", "1")[0] == 0
    assert "left out, because there is no finished model to load: plain (runs/absent)" in capsys.readouterr().err
    assert [path.parent.name for path in made.folder.rglob("*.mp4")] == ["stronger"]


def test_mistakes_of_the_last_system_are_told_before_the_first_video(made, capsys):
    made.definition.write_text(
        made.definition.read_text().replace('"guidance_scale": 3.0', '"method": "replacement", "clip_frames": 18')
    )
    code, folder = made()
    assert (code, list(folder.rglob("*.mp4"))) == (2, [])
    assert "error: system stronger: " in capsys.readouterr().err


def test_of_another_video_nothing_is_said(made):
    assert made("--prompts", "1", "--systems", "plain")[0] == 0
    (video,) = made.folder.rglob("*.mp4")
    video.with_suffix(".json").unlink()
    other = video.parent.parent / "stronger" / video.name
    other.parent.mkdir()
    video.rename(other)
    assert made("--prompts", "1", "--systems", "stronger")[0] == 2
    assert not other.with_suffix(".json").exists()


def test_videos_that_were_scored_before_are_not_made_again(made, tmp_path, capsys):
    names = [name for _, _, name in read_comparison(str(made.definition)).videos]
    before = tmp_path / "before" / "plain" / names[0]
    before.parent.mkdir(parents=True)
    write_video(before, gradient(48, 32, 48, 0))
    earlier = str(tmp_path / "scores.json")
    score(ScoreConfig((str(before),), output=earlier))
    assert made("--earlier", earlier, "--share", "1/2")[0] == 0
    assert made("--earlier", earlier, "--share", "2/2")[0] == 0
    assert "other weights" not in capsys.readouterr().err  # of that video nothing is known
    said = json.loads((tmp_path / "scores.json").read_text())
    said["videos"][0]["run"] = {"settings": {"weights": "x"}}
    (tmp_path / "scores.json").write_text(json.dumps(said))
    assert made("--earlier", earlier)[0] == 0
    assert capsys.readouterr().err == "plain: --earlier has videos of other weights, which will count with these\n"
    here = {f"{path.parent.name}/{path.name}" for path in made.folder.rglob("*.mp4")}
    assert here == {f"plain/{names[1]}", f"stronger/{names[0]}", f"stronger/{names[1]}"}
    capsys.readouterr()
    assert made("--earlier", str(tmp_path / "none.json"))[0] == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "a/b"])
def test_shares_that_cannot_be_are_refused(made, capsys, share):
    code, folder = made("--share", share)
    assert (code, folder.exists()) == (2, False)
    assert f"--share {share} is not possible" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"systems": ()}, "at least one system"),
        ({"prompts": ()}, "at least one system, one prompt"),
        ({"systems": (System("a"), System("a"))}, "two systems of the comparison are called a"),
        ({"systems": (System("a/b"),)}, "'a/b' must be a folder's"),
        ({"prompts": ("a", PromptLine("b", start="b.mp4"))}, "some prompts of the comparison have a start clip"),
    ],
)
def test_comparisons_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Comparison(**{"systems": (System("a"),), "prompts": ("a",)} | changes)


def test_every_prompt_has_every_seed_and_names_have_no_underscore():
    found = Comparison((System("a"),), ("The same_words!", "the same words"), seeds=(3, 4)).videos
    assert [(line.prompt, seed) for line, seed, _ in found] == [
        ("The same_words!", 3),
        ("The same_words!", 4),
        ("the same words", 3),
        ("the same words", 4),
    ]
    names = [name for _, _, name in found]
    assert names[0] == "001-the-same-words-seed3.mp4"
    assert len(set(names)) == 4
    assert not any("_" in name for name in names)


FIELDS = """from pavdm_jax.evaluation.comparison import Comparison, System
comparison = Comparison(systems=(System("a", "demo"),), prompts={}, seeds={}, frames={})
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file"),
        ("x = 1", "does not define `comparison = Comparison"),
        ("comparison = 1", "does not define `comparison = Comparison"),
        ("raise SystemExit(0)", "fails: SystemExit"),
        ("comparison = 1 / 0", "fails: ZeroDivisionError: division by zero"),
        (FIELDS.format('"a red circle moves left"', "(0,)", 34), "is wrong: prompts"),
        (FIELDS.format('("a red circle moves left",)', "1", 34), "is wrong: seeds"),
        (FIELDS.format('("a red circle moves left",)', "(0,)", '"34"'), "is wrong: frames"),
    ],
)
def test_files_that_define_no_comparison_are_refused(tmp_path, text, message):
    path = tmp_path / "comparison.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_comparison(str(path))
