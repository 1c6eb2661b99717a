"""Convert published weights: `python -m pavdm_jax.convert_weights --output checkpoints/open-sora-1.2`.

Without paths, the three published repositories of Open-Sora v1.2 are downloaded and converted: about 25 GB, and 10 (bfloat16) to 25 GB more for
the result. `pavdm_jax.load("checkpoints/open-sora-1.2")` and `pavdm --checkpoint` read it.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints.layers import stored_arrays
from pavdm_jax.checkpoints.model_folder import open_model
from pavdm_jax.cli import Parser, exit_with
from pavdm_jax.conversion import hub
from pavdm_jax.conversion.architecture import OPTIONS
from pavdm_jax.conversion.convert import convert
from pavdm_jax.conversion.export import export_stdit
from pavdm_jax.conversion.sources import Weights, open_weights
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.model import DTYPES, PARTS

EXAMPLES = """
examples:
  python -m pavdm_jax.convert_weights --output checkpoints/open-sora-1.2 --dtype bfloat16
      downloads hpcai-tech/OpenSora-STDiT-v3, hpcai-tech/OpenSora-VAE-v1.2 and DeepFloyd/t5-v1_1-xxl, and converts them
  python -m pavdm_jax.convert_weights --stdit OpenSora-STDiT-v3 --vae OpenSora-VAE-v1.2 --output checkpoints/mine
      converts local folders or files; any subset
  python -m pavdm_jax.convert_weights --text-encoder t5-v1_1-xxl --output checkpoints/mine
      adds a part to a folder that exists already, or replaces it
  python -m pavdm_jax.convert_weights --stdit outputs/epoch0-global_step1000 --output checkpoints/finetuned
      takes a checkpoint of Open-Sora's own training: its averaged weights, ema.pt; for the others give .../model
  python -m pavdm_jax.convert_weights --inspect checkpoints/mine
  python -m pavdm_jax.convert_weights --export-stdit runs/finetune --output model.safetensors
      goes back: a transformer trained here, as Open-Sora loads it

Understood are *.safetensors and PyTorch's .bin, .pt and .pth, whole or sharded with an index. PyTorch's files need the extra
pavdm_jax[torch]; they are read without executing anything in them. Half-written results never load: run the command again.
"""


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m pavdm_jax.convert_weights",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("what to convert").add_argument
    for part, what in (
        ("stdit3", "the transformer"),
        ("vae", "the video VAE"),
        ("t5", "T5 v1.1, with its spiece.model"),
    ):
        add(
            OPTIONS[part],
            dest=part,
            metavar="PATH",
            help=f"{what}: a folder, a file, or a repository's name such as {hub.PUBLISHED[part]}",
        )
    add = parser.add_argument_group("or else").add_argument
    add("--inspect", metavar="DIR", help="show what is in a model folder: parts, sizes, dtypes, sources with checksums")
    add(
        "--export-stdit",
        metavar="DIR",
        help="write the transformer of a model folder as one safetensors file for Open-Sora",
    )
    add = parser.add_argument_group("result").add_argument
    add("--output", "-o", metavar="PATH", help="the model folder to make or to add to; of --export-stdit, the file")
    add(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of the stored matrices; norms, biases and tables are float32 in any case (default float32)",
    )
    add("--quiet", "-q", action="store_true", help="no progress bar")
    return parser


def find(part: str, given: str) -> Weights:
    """The weights that an option names: a path, or else a repository, which is downloaded."""
    storage.local_path(given, OPTIONS[part])
    if not Path(given).exists() and hub.is_name(given):
        return open_weights(hub.download(given), label=given)
    if not Path(given).exists():
        raise ConfigError(f"{OPTIONS[part]}: there is no file or folder {given}")
    return open_weights(Path(given))


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments ask for; returns the exit code."""
    given = {part: getattr(arguments, part) for part in PARTS if getattr(arguments, part)}
    modes = [bool(given), arguments.inspect is not None, arguments.export_stdit is not None]
    if sum(modes) > 1:
        raise ConfigError("--inspect and --export-stdit go alone, without weights to convert")
    if arguments.inspect is not None:
        print(inspect(arguments.inspect))
        return 0
    if not arguments.output:
        raise ConfigError("--output is missing; give the model folder to make, for instance checkpoints/open-sora-1.2")
    output = storage.local_path(arguments.output, "--output")
    with Progress(arguments.quiet) as bar:
        if arguments.export_stdit is not None:
            storage.local_path(arguments.export_stdit, "--export-stdit")
            export_stdit(arguments.export_stdit, output, arguments.dtype, bar.update, bar.begin)
        else:
            sources = {part: find(part, name) for part, name in (given or hub.PUBLISHED).items()}
            convert(sources, output, arguments.dtype, bar.update, bar.begin)
    print(f"{output}: whole" if arguments.export_stdit else inspect(str(output)))
    return 0


class Progress:
    """A bar that begins when the number of bytes is known."""

    def __init__(self, quiet: bool):
        self._quiet, self._bar = quiet, None

    def __enter__(self) -> "Progress":
        return self

    def begin(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="B", unit_scale=True, disable=self._quiet, desc="weights")

    def update(self, nbytes: int) -> None:
        if self._bar is not None:
            self._bar.update(nbytes)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def inspect(path: str) -> str:
    """What is in a model folder, as text."""
    model = open_model(path)
    lines = [f"{path}: {model.config.name}"]
    for part in PARTS:
        if part not in model.parts:
            lines.append(f"{part}: absent; {OPTIONS[part]} adds it")
            continue
        record, arrays = model.parts[part], stored_arrays(model.folder / "params" / part)
        dtypes: dict[str, int] = {}
        for array in arrays.values():
            dtypes[array.dtype.name] = dtypes.get(array.dtype.name, 0) + array.size
        count = ", ".join(f"{_short(n)} in {name}" for name, n in sorted(dtypes.items(), key=lambda item: -item[1]))
        size = sum(record["files"].values())
        lines.append(f"{part}: {_short(sum(dtypes.values()))} parameters ({count}), {size / 1e9:.3f} GB on disk")
        lines.append(f"  {getattr(model.config, part)}")
        lines.append(f"  from {record.get('source', 'training here')}")
        for name, source in record.get("source_files", {}).items():
            lines.append(f"  {name}: {source['bytes']} bytes, sha256 {source['sha256']}")
    words = f"{model.tokenizer.vocab_size} ids" if model.tokenizer else "absent; it comes with --text-encoder"
    return "\n".join([*lines, f"tokenizer: {words}"])


def _short(count: int) -> str:
    """1208872772 → 1.209 G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g} {letter}"
    return str(count)


def main() -> None:
    """The command line; user mistakes print one line, or the list of tensors that do not fit, and exit with 2."""
    arguments = make_parser().parse_args()
    exit_with(lambda: run(arguments), interrupted="interrupted; nothing was written")


if __name__ == "__main__":
    main()
