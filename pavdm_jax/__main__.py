"""The command `pavdm`, also `python -m pavdm_jax`: its first word says what is done; without such a word, a video."""

import importlib
import sys

from pavdm_jax import __version__
from pavdm_jax.interrupts import interrupt_in_one_line

COMMANDS = {
    "generate": ("make_video", 'make videos from prompts; the word can be left out: pavdm "a red circle moves left"'),
    "redo": ("redo", "make a video again from a second on, with another seed or prompt"),
    "train": ("train", "train or finetune a model by a config: pavdm train --config demo_vae"),
    "precompute": ("precompute", "encode videos once, for trainings that read the latents"),
    "convert-weights": ("convert_weights", "download and convert the published weights, or export a transformer"),
    "evaluate": ("evaluate", "score a model of the shapes world; evaluate make, evaluate score: compare systems"),
    "benchmark": ("benchmark", "measure speed, memory and compile time of this machine, or the loader of a training"),
}
"""By name, the module whose `main` it is, and what it does. Modules are imported when needed: it takes seconds."""

HELP = f"""usage: pavdm COMMAND [OPTIONS], or pavdm "PROMPT" [OPTIONS]

commands:
{chr(10).join(f"  {name:16} {what}" for name, (_, what) in COMMANDS.items())}

`pavdm COMMAND --help` shows the options of a command, `pavdm --version` the version. Those of generate:
"""


def main() -> None:
    """The command line."""
    interrupt_in_one_line()
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(f"pavdm_jax {__version__}")
        return
    from pavdm_jax.cli import exit_with  # it takes a second

    exit_with(lambda: run(arguments), interrupted="interrupted")


def run(arguments: list[str]) -> int:
    """Hand over to the command, which ends the process."""
    if arguments[:1] in (["--help"], ["-h"]):
        print(HELP)
    name = arguments[0].replace("_", "-") if arguments else ""
    name, rest = (name, arguments[1:]) if name in COMMANDS else ("generate", arguments)
    importlib.import_module(f"pavdm_jax.{COMMANDS[name][0]}").main(rest)
    return 0


if __name__ == "__main__":
    main()
