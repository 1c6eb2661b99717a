"""Prompts files: three forms, and one line for every mistake."""

import json

import pytest

from pavdm_jax.errors import ConfigError
from pavdm_jax.generation.prompts_file import PromptLine, read_prompts_file


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "dog.mp4").touch()
    return tmp_path


def read(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts_file(folder / name)


def test_a_text_file_has_a_prompt_and_perhaps_a_start_clip_a_line(folder):
    """The second form is the released test set's; a byte order mark, comments and empty lines do not count."""
    content = "\ufeff# prompts\n\na red circle moves left\n  a dog runs. || clips/dog.mp4 \n"
    start = str(folder / "clips" / "dog.mp4")
    assert read(folder, "a.txt", content) == [
        PromptLine("a red circle moves left"),
        PromptLine("a dog runs.", start),
    ]
    assert read(folder, "prompts", f"a dog||{start}\r\n") == [PromptLine("a dog", start)]


def test_csv_and_json_lines_have_settings_of_each(folder):
    expected = [
        PromptLine("a dog, running", str(folder / "clips" / "dog.mp4"), 7, 2.5, "blurry", "dog.mp4"),
        PromptLine("a cat"),
    ]
    header = "prompt,start,seed,seconds,negative_prompt,output"
    rows = ['"a dog, running",clips/dog.mp4,7,2.5,blurry,dog.mp4', "a cat,,,,,"]
    assert read(folder, "a.csv", "\n".join([header, *rows])) == expected
    records = [
        {"prompt": "a dog, running", "start": "clips/dog.mp4", "seed": 7, "seconds": 2.5}
        | {"negative_prompt": "blurry", "output": "dog.mp4"},
        {"prompt": "a cat", "seed": None},
    ]
    assert read(folder, "a.jsonl", "\n\n".join(map(json.dumps, records))) == expected
    assert read(folder, "b.jsonl", '{"prompt": "a red\u2028circle"}\n')[0].prompt.split() == ["a", "red", "circle"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "# nothing\n", "holds no prompt; write one a line"),
        ("a.txt", b"\xff\xfe\x00", "no text in UTF-8"),
        ("a.txt", "a\nb||none.mp4", "line 2 .*the start clip none.mp4 does not exist; its path is relative to the"),
        ("a.txt", "b||", "line 1 .*one start clip, not 'b||'"),
        ("a.txt", "b||clips/dog.mp4||x", "line 1 .*one start clip"),
        ("a.txt", "||clips/dog.mp4", "line 1 .*empty prompt"),
        ("a.csv", "text,seed\na,1", "line 2 .*unknown name 'text'; known are prompt, start, seed"),
        ("a.csv", "seed\n1", "line 2 .*has no prompt"),
        ("a.csv", "prompt,seed\na dog, running,1", "line 2 .*between quotes"),
        ("a.csv", 'prompt\n"a"b', "line 2 .*is no CSV"),
        ("a.csv", "prompt,seed\na,one", "line 2 .*seed 'one' is no number"),
        ("a.csv", "prompt,seed\na,1.5", "line 2 .*seed 1.5 must be a whole number from 0 to 2147483647"),
        ("a.csv", "prompt,seed\na,-1", "line 2 .*seed -1"),
        ("a.csv", "prompt,seconds\na,5\nb,0", "line 3 .*seconds 0 must be above 0"),
        ("a.csv", "prompt,seconds\na,inf", "line 2 .*seconds inf must be above 0"),
        ("a.csv", "prompt,output\na,x/y.mp4", "line 2 .*output x/y.mp4 must be a name that ends in .mp4"),
        ("a.csv", "prompt,output\na,y.gif", "line 2 .*output y.gif"),
        ("a.csv", "prompt,output\na,y.mp4\nb,\nc,y.mp4", "line 4 .*output y.mp4 is that of line 2, too"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": 3}', "line 2 .*prompt 3 must be text"),
        ("a.jsonl", '{"prompt": "a", "seed": true}', "line 1 .*seed True is no number"),
        ("a.jsonl", '{"prompt": "a", "output": "a\\u0000b.mp4"}', "line 1 .*output .* has characters that are no text"),
        ("a.jsonl", '{"prompt": "a", "start": "\\ud800.mp4"}', "line 1 .*start .* has characters that are no text"),
        ("a.jsonl", '["a"]', "line 1 .*must be an object, such as"),
        ("a.jsonl", '{"prompt"', "line 1 .*is no JSON"),
    ],
)
def test_every_mistake_is_one_line_that_names_its_place(folder, name, content, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(folder, name, content)
    assert "\n" not in str(caught.value) and str(folder / name) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"prompts file .*none\.txt cannot be read: No such file"):
        read_prompts_file(tmp_path / "none.txt")
