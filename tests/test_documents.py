"""What the documents say holds: links lead somewhere, commands are read by the project, the front page is short."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from pavdm_jax.__main__ import COMMANDS
from pavdm_jax.errors import ConfigError
from pavdm_jax.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "configs", "pavdm_jax", "tests")
DOCUMENTS = [
    path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md" if folder == "." else "**/*.md"))
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}

WORDS = {"PROMPT": "'a red circle'", "START": "clip.mp4", "NAME": "tpu_v4", "TOPOLOGY": "v4:4x4x8"}
"""What a reader fills in."""

WORK = {
    "precompute": ("precompute", ["precompute"]),
    "benchmark": (
        "benchmark",
        ["measure_all", "measure_real", "measure_against", "benchmark_loader", "compile_only"],
    ),
    "evaluate make": ("evaluation.make", ["run"]),
    "evaluate score": ("evaluation.score", ["score"]),
}
"""Of a command, its module and the functions that do the work once the options are read; of the others it is `run`."""


def anchors(text: str) -> set[str]:
    """As the headings of a document are linked."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[str]:
    """What calls the project with arguments, in blocks of code and within sentences."""
    block = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0] for found in block.findall(text) for line in found.splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", block.sub("", text))]
    called = re.compile(r"(pavdm|python -m pavdm_jax\S*|bash launch/(tpu_pod|multi_gpu)\.sh) [^#\s]")
    return [line for line in lines if called.match(line) and "..." not in line]


def read(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a command as the project does, and do nothing.

    Raises:
      ConfigError: it is not one that the project understands.
    """
    for word, value in WORDS.items():
        line = re.sub(rf"(?<![\w/]){word}(?![\w/])", value, line)
    words = shlex.split(line, comments=True)
    if words[0] == "bash":  # these pass what they are given to a training
        name, given = "train", words[2:]
    elif words[0] == "pavdm":
        name, given = (words[1], words[2:]) if words[1] in COMMANDS else ("generate", words[1:])
    else:
        name, given = words[2].partition(".")[2].replace("_", "-") or "generate", words[3:]
    if not given or {"--help", "--version"} & set(given):
        return
    if f"{name} {given[0]}" in WORK:
        name, given = f"{name} {given[0]}", given[1:]
    where, functions = WORK.get(name) or (COMMANDS[name][0], ["run"])
    module = importlib.import_module(f"pavdm_jax.{where}")
    monkeypatch.setattr(module, "exit_with", lambda work, interrupted: work())
    for function in functions:
        monkeypatch.setattr(module, function, lambda *arguments, **named: 0)
    module.main(given)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings_that_exist(name):
    wrong = []
    for link in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if link.startswith("https://"):
            continue
        if not target.exists() or (heading and heading not in anchors(target.read_text())):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("name", TEXTS)
def test_commands_are_understood_as_they_are_written(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # configs are named by their path from there
    wrong = []
    for line in commands(TEXTS[name]):
        try:
            read(line, monkeypatch)
        except ConfigError as error:
            wrong.append(f"{line}: {error}")
    assert wrong == []


def test_commands_are_found_and_mistakes_in_them_seen(monkeypatch):
    assert len(commands(TEXTS["README.md"])) >= 12
    for line in ("pavdm PROMPT --fraems 3", "pavdm train --config NAME --seed x", "pavdm benchmark --compile 1"):
        with pytest.raises(ConfigError, match="--"):
            read(line, monkeypatch)


def test_configs_that_documents_write_out_are_configs():
    blocks = [block for text in TEXTS.values() for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)]
    written = [block for block in blocks if "\nconfig = " in block]
    assert written
    for block in written:
        names: dict = {}
        exec(block, names)
        assert isinstance(names["config"], TrainConfig)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
def test_files_and_names_that_are_spoken_of_exist(name):
    code = [path for folder in ("pavdm_jax", "tests") for path in (ROOT / folder).rglob("*.py")]
    sources = "\n".join(path.read_text() for path in code if path != Path(__file__))
    spoken = re.findall(r"`([\w./]+)`", re.sub(r"^```.*?^```", "", TEXTS[name], flags=re.MULTILINE | re.DOTALL))
    files = {word for word in spoken if word.endswith((".py", ".sh", ".md", "/"))}
    missing = {file for file in files if not (ROOT / file).exists() and not (ROOT / "pavdm_jax" / file).exists()}
    places = [
        path.stem for folder in ("pavdm_jax", "tests", "configs", "launch") for path in (ROOT / folder).rglob("*")
    ]
    for word in set(spoken) - files:
        last = re.split(r"[./]", word.strip("."))[-1]
        if last not in places and not re.search(rf"\b{last}\b", sources):
            missing.add(word)
    assert missing == set()


def test_the_front_page_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 140
