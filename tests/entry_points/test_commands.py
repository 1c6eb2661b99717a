"""`pavdm`: its subcommands, one line for every mistake in any of them, and the options shared with Python."""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import pavdm_jax
from pavdm_jax import __main__ as pavdm
from pavdm_jax import make_video, resolutions
from pavdm_jax.cli import enable_cache, exit_with, read_command
from pavdm_jax.errors import ConfigError, ListError, MachineError
from pavdm_jax.generation.options import Options
from pavdm_jax.training.config_files import find_config, shipped_names

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `pavdm` in this process: exit code, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pavdm", *arguments])
        try:
            pavdm.main()
            code = 0
        except SystemExit as end:
            code = end.code
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_the_version_is_told(run):
    assert run("--version") == (0, f"pavdm_jax {pavdm_jax.__version__}\n", "")


def test_the_version_needs_no_jax():
    script = (
        "import sys; sys.argv[1:] = ['--version']; from pavdm_jax.__main__ import main; main(); "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_mistake_in_a_training_is_found_before_the_slow_imports():
    """Orbax, grain and optax take about as long as JAX itself, and the command would take over two seconds."""
    script = (
        "import sys; from pavdm_jax.train import read, run; from pavdm_jax.errors import ConfigError\n"
        "try:\n    run(*read(['--config', 'demo_finetune', '--data.manifest', 'missing.csv']))\n"
        "except ConfigError as error:\n    assert 'there is no manifest' in str(error)\n"
        "else:\n    sys.exit('no error')\n"
        "print(sorted({'orbax', 'grain', 'optax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_help_shows_commands_then_options_then_examples(run):
    code, told, _ = run("--help")
    assert code == 0
    words = [f"  {name} " for name in pavdm.COMMANDS] + ["[PROMPT ...]", "video options", "--frames", "examples:"]
    places = [told.index(word) for word in words]
    assert places == sorted(places)
    assert "(default: 1440)" in told
    assert run("generate", "--help")[1] in told


@pytest.mark.parametrize("name", [name for name in pavdm.COMMANDS if name != "generate"])
def test_every_command_explains_itself_and_names_an_option_that_it_has_not(run, name):
    code, told, _ = run(name, "--help")
    assert code == 0
    assert f"usage: pavdm {name}" in told
    needed = {
        "train": ["--config", "demo_vae"],
        "precompute": ["--checkpoint", "demo"],
        "redo": ["video.mp4", "--from", "1", "--seed", "1"],
    }
    code, _, line = run(name, *needed.get(name, []), "--outputt", "x")
    assert code == 2
    assert line.startswith("error: ")
    assert "--output" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate"], "there is no prompt"),
        (["x", "--frames"], "Missing value for argument '--frames'"),
        (["x", "--cfg", "5"], "there is no option --cfg; did you mean --guidance-scale?"),
        (["x", "--num-frames", "5"], "there is no option --num-frames; did you mean --frames?"),
        (["x", "--frames", "many"], "--frames many is not a number of frames; give a whole number, or inf"),
        (["x", "--width", "wide"], "--width: "),
        (["x", "--frmaes", "3"], "there is no option --frmaes; did you mean --frames?"),
        (["train", "--config"], "Missing value for argument '--config'"),
        (
            ["train", "--config", "tpu_v44"],
            "there is no config tpu_v44; give a file, or one of the shipped demo_base, ",
        ),
        (["train", "--config", "demo_base", "extra"], "'extra' belongs to no option"),
        (["evaluate", "--videos", "few"], "--videos: invalid literal for int()"),
        (["convert_weights", "--dtype", "int8"], "--dtype int8 is not possible; use float32 or bfloat16"),
    ],
)
def test_mistakes_are_one_line(run, arguments, message):
    code, told, line = run(*arguments)
    assert (code, told) == (2, "")
    assert line.startswith(f"error: {message}")
    assert line.count("\n") == 1


def test_shipped_configs_are_found_by_name_and_others_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert shipped_names() == [name for name in files if not name.startswith("comparison_")]
    assert Path(find_config("tpu_v4")) == ROOT / "configs" / "tpu_v4.py"
    assert find_config("mine/tpu_v4.py") == "mine/tpu_v4.py"
    Path("tpu_v4").write_text("")  # a file of that name is meant
    assert find_config("tpu_v4") == "tpu_v4"


def test_all_options_of_python_are_options_of_the_command():
    read = make_video.read(
        ["a", "b", "--frames", "inf", "--steps", "12", "--seed=7", "--aspect_ratio", "1:1", "-q", "-o", "x.mp4"]
    )
    assert read.prompts == ("a", "b")
    video = read.video
    assert (video.frames, video.steps, video.seed, video.aspect_ratio) == (None, 12, 7, "1:1")
    assert (read.file.quiet, read.file.output) == (True, "x.mp4")
    assert make_video.read(["--frames", "4x"]).video.frames == resolutions.frame_count("4x")
    standard = make_video.read([]).video
    assert {f.name: getattr(standard, f.name) for f in dataclasses.fields(Options)} == dataclasses.asdict(Options())


def test_prompt_changes_are_pairs_in_any_order():
    read = make_video.read(["a", "--prompt-at", "20", "b c", "--prompt-at", "9.5", "d"])
    assert make_video.read_timeline(read.prompt_at) == [(9.5, "d"), (20.0, "b c")]


def test_own_complaints_about_values_are_told_as_they_are():
    long = "x/" * 100

    @dataclasses.dataclass(frozen=True)
    class Inner:
        path: str = ""

        def __post_init__(self):
            if self.path:
                raise ConfigError(f"the path {self.path} is none")

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner = Inner()

    with pytest.raises(ConfigError) as caught:
        read_command(Outer, ["--inner.path", long], "pavdm x", None)
    assert str(caught.value) == f"the path {long} is none"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("wrong"), 2, "error: wrong\n"),
        (
            ConfigError("no \x1b[2J\nfile " + "x" * 60_000),
            2,
            f"error: no \\x1b[2J\\nfile {'x' * 476} ... {'x' * 500}\n",
        ),
        (ListError("two:\n  a\n  b"), 2, "error: two:\n  a\n  b\n"),
        (MachineError("full"), 1, "error: full\n"),
        (OSError(13, "Permission denied"), 2, "error: [Errno 13] Permission denied\n"),
        (OSError(28, "No space left"), 1, "error: [Errno 28] No space left\n"),
        (MemoryError(), 1, "error: out of memory, or a fault of the device: MemoryError\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_every_command_ends_in_the_same_way(capsys, error, code, message):
    def work():
        raise error

    with pytest.raises(SystemExit) as end:
        exit_with(work, interrupted="stopped")
    assert (end.value.code, capsys.readouterr().err) == (code, message)


@pytest.mark.parametrize("command", [["--help"], ["train", "--help"]])
def test_output_that_nobody_reads_to_its_end_is_no_error(command):
    """As of `pavdm --help | head -1`: the other end is closed before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    call = [sys.executable, "-m", "pavdm_jax", *command]
    done = subprocess.run(call, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["pavdm_jax", "pavdm_jax.train"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module, sent):
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any("jax._src.core" in line for line in process.stderr)
        process.send_signal(sent)
        said = [line for line in process.stderr if not line.startswith("import time:")]
    assert (process.returncode, said) == (130, ["interrupted\n"])


def test_another_program_that_imports_the_package_keeps_its_own_ctrl_c(tmp_path):
    (tmp_path / "theirs.py").write_text("import sys, pavdm_jax; print(sys.excepthook is sys.__excepthook__)")
    command = [sys.executable, "-m", "theirs"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_public_names_are_listed():
    assert {"load", "generate", "generate_stream", "Model", "VideoWriter", "ConfigError"} <= set(dir(pavdm_jax))
    assert all(getattr(pavdm_jax, name) is not None for name in pavdm_jax.__all__)


DAMAGED_CACHE = """
import pathlib, sys
import jax
from pavdm_jax.cli import enable_cache, exit_with

def work():
    enable_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    print(jax.jit(lambda x: x * 2)(4.0))
    return 0

exit_with(work, "interrupted")
"""


AS_COMMAND = 'exit_with(work, "interrupted")'


def test_a_damaged_entry_of_the_cache_is_one_line_once(tmp_path):
    """Of a command; and in Python it is mended as well."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["PAVDM_CACHE"] = str(tmp_path)

    def said(script=DAMAGED_CACHE):
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "8.0\n"
        return done.stderr

    assert said() == ""
    entries = list(tmp_path.glob("*-cache"))
    assert entries
    for path in entries:
        path.write_bytes(path.read_bytes()[:-20])
    assert said() == (
        f"warning: a compiled program in {tmp_path} was damaged; all are removed and will be compiled again\n"
    )
    assert said() == ""
    assert {path.name for path in entries} == {path.name for path in tmp_path.glob("*-cache")}
    for path in entries:
        path.write_bytes(path.read_bytes()[:-20])
    assert "was damaged; all are removed and will be compiled again" in said(
        DAMAGED_CACHE.replace(AS_COMMAND, "work()")
    )
    assert said() == ""


FULL_CACHE = """
import resource
import jax
from pavdm_jax.cli import enable_cache, exit_with

def work():
    enable_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    for change in (lambda x: x * 2, lambda x: x + 8, lambda x: x * x, lambda x: 24 - x):
        print(jax.jit(change)(4.0))
    return 0

exit_with(work, "interrupted")
"""


def test_a_disk_that_is_full_of_compiled_programs_is_one_line(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["PAVDM_CACHE"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", FULL_CACHE], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "8.0\n12.0\n16.0\n20.0\n")
    assert not list(tmp_path.glob("*-cache"))
    assert done.stderr == (
        f"warning: compiled programs are not kept: {tmp_path} cannot be written; is the disk full?\n"
    )


def test_modules_of_commands_exist():
    for module, _ in pavdm.COMMANDS.values():
        assert callable(importlib.import_module(f"pavdm_jax.{module}").main)


def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PAVDM_CACHE", str(tmp_path / "file" / "cache"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        with pytest.warns(UserWarning, match="compiled programs are not kept"):
            enable_cache()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_ctrl_c_in_a_callback_is_not_lost():
    script = """
import signal, weakref
from pavdm_jax.interrupts import interrupt_in_one_line

class Thing:
    pass

interrupt_in_one_line()
thing = Thing()
kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
del thing
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
