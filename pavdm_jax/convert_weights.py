"""Convert published weights: `pavdm convert-weights --output checkpoints/open-sora-1.2`.

Without paths, the repositories of a published model are downloaded and converted: of Open-Sora v1.2 about 25 GB, and 13
(bfloat16) to 25 GB more for the result, which `pavdm_jax.load(PATH)` and `pavdm --checkpoint PATH` read.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from pavdm_jax import storage
from pavdm_jax.checkpoints.layers import stored_arrays
from pavdm_jax.checkpoints.lora import Adapters, find_base
from pavdm_jax.checkpoints.lora import read as read_adapters
from pavdm_jax.checkpoints.model_folder import check_not_embedded, open_model
from pavdm_jax.checkpoints.parts_json import check_files
from pavdm_jax.checkpoints.run_folder import is_unfinished_run
from pavdm_jax.cli import exit_with, read_command
from pavdm_jax.config import OPEN_SORA_1_2
from pavdm_jax.conversion import hub
from pavdm_jax.conversion.architecture import OPTIONS
from pavdm_jax.conversion.convert import convert
from pavdm_jax.conversion.export import export_transformer
from pavdm_jax.conversion.pickles import import_torch
from pavdm_jax.conversion.sources import Weights, open_weights, part_of
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.families import PUBLISHED
from pavdm_jax.models.level_pattern import name_patterns
from pavdm_jax.models.model import DTYPES, PARTS, part_name

EXAMPLES = """
examples:
  pavdm convert-weights --output checkpoints/open-sora-1.2 --dtype bfloat16
      downloads hpcai-tech/OpenSora-STDiT-v3, hpcai-tech/OpenSora-VAE-v1.2 and DeepFloyd/t5-v1_1-xxl, whose files are
      PyTorch's (pip install 'pavdm_jax[torch]'), and converts them
  pavdm convert-weights --stdit OpenSora-STDiT-v3 --vae OpenSora-VAE-v1.2 --output checkpoints/mine
      converts local folders or files; any subset
  pavdm convert-weights --text-encoder t5-v1_1-xxl --output checkpoints/mine
      adds a part to a folder that exists already, or replaces it
  pavdm convert-weights --stdit outputs/epoch0-global_step1000 --output checkpoints/finetuned
      takes a checkpoint of Open-Sora's own training: its averaged weights, ema.pt; for the others give .../model
  pavdm convert-weights --vae OWNER/NAME --revision COMMIT --output checkpoints/mine
      downloads another repository, in a state that does not change
  pavdm convert-weights --inspect checkpoints/mine
  pavdm convert-weights --verify checkpoints/mine
  pavdm convert-weights --family skyreels-v2-df-1.3b --output checkpoints/skyreels-v2-df-1.3b --dtype bfloat16
      downloads Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers, and converts it
  pavdm convert-weights --transformer DIR --vae DIR --text-encoder DIR --output checkpoints/mine
      takes a local copy of that repository, or of the one in the original layout (which needs pavdm_jax[torch])
  pavdm convert-weights --export-transformer runs/finetune --output model.safetensors
      goes back: a transformer trained here, as Open-Sora or SkyReels-V2 loads it

Understood are *.safetensors and PyTorch's .bin, .pt and .pth, whole or sharded with an index. PyTorch's files need the
extra pavdm_jax[torch]; they are read without executing anything in them. Half-written results never load: run the
command again.
"""

OPTION_OF = {**OPTIONS, "transformer": "--transformer"}
"""The option of each part, and of a transformer of any family."""


@dataclass(frozen=True)
class ConvertCommand:
    """What to convert (folders, files, or names of repositories), show or export, and where to write it."""

    transformer: Annotated[str | None, tyro.conf.arg(metavar="PATH", aliases=["--stdit"])] = None
    """the transformer: Open-Sora's STDiT3, or one of SkyReels-V2-DF in its original layout or that of diffusers"""
    vae: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """the video VAE of the same family"""
    text_encoder: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """T5 v1.1, or umT5 for SkyReels-V2, with its spiece.model"""
    family: str | None = None
    """a published model: open-sora-1.2, skyreels-v2-df-1.3b, skyreels-v2-df-14b, skyreels-v2-df-14b-720p; without paths
    it is downloaded, else its defaults are taken (size, window); open-sora-1.2 when nothing is given"""
    revision: Annotated[str | None, tyro.conf.arg(metavar="COMMIT")] = None
    """a commit, tag or branch of the repository to download; one that is not a published one needs it"""
    inspect: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """convert nothing: show what is in a model folder: parts, sizes, dtypes, sources with checksums"""
    verify: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """convert nothing: compare the files of a model folder with the checksums that it has of them"""
    export_transformer: Annotated[str | None, tyro.conf.arg(metavar="DIR", aliases=["--export-stdit"])] = None
    """convert nothing: write the transformer of a model folder as one safetensors file in the layout of its authors"""
    output: Annotated[str | None, tyro.conf.arg(metavar="PATH", aliases=["-o"])] = None
    """the model folder to make or to add to; of --export-transformer, the file"""
    dtype: str = "float32"
    """of the stored matrices, float32 or bfloat16; norms, biases and tables are float32 in any case; of
    --export-transformer, of all tensors"""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """no progress bar"""

    @property
    def sources(self) -> dict[str, str]:
        """The weights to be converted, by part."""
        given = {"transformer": self.transformer, "vae": self.vae, "t5": self.text_encoder}
        return {part: path for part, path in given.items() if path is not None}

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype {self.dtype} is not possible; use {' or '.join(DTYPES)}")
        if self.family is not None and self.family not in PUBLISHED:
            raise ConfigError(f"--family {self.family} is not known; use {', '.join(PUBLISHED)}")
        for part, given in self.sources.items():
            if not given:
                raise ConfigError(f"{OPTION_OF[part]} is empty; give a folder, a file, or the name of a repository")
        alone = (self.inspect, self.verify, self.export_transformer)
        if bool(self.sources) + sum(folder is not None for folder in alone) > 1:
            raise ConfigError("--inspect, --verify and --export-transformer go alone, without weights to convert")
        if self.revision is not None and (len(self.sources) != 1 or not self.revision):
            options = "--transformer, --vae and --text-encoder"
            raise ConfigError(f"--revision is a commit of one repository; give one of {options}")
        looked_at = self.inspect is not None or self.verify is not None
        if looked_at and (self.output is not None or self.family is not None or self.dtype != "float32"):
            raise ConfigError("--inspect and --verify write nothing; leave out --output, --family and --dtype")
        if self.export_transformer is not None and self.family is not None:
            raise ConfigError("--export-transformer has the family of its model; leave out --family")


def find(part: str, given: str, revision: str | None) -> Weights:
    """The weights of an option: at a path, or else of a repository, which is downloaded.

    What might be a mistyped path is not looked for in the network: repositories other than the published ones need a
    revision.
    """
    option = OPTION_OF[part]
    storage.local_path(given, option)
    path = Path(given)
    if path.exists():
        if revision is not None:
            raise ConfigError(f"--revision is of a repository that is downloaded, and {given} is here; leave it out")
        return open_weights(part_of(path, part), label=path.resolve().name)
    if hub.is_name(given) and (revision is not None or hub.is_published(given)):
        folder = hub.download(given, part, revision)
        return open_weights(part_of(folder, part), label=given, commit=hub.commit_of(folder))
    remedy = "; a repository on huggingface.co needs --revision, a commit or main" if hub.is_name(given) else ""
    raise ConfigError(f"{option}: there is no file or folder {given}{remedy}")


def run(command: ConvertCommand) -> int:
    """Run the command; returns the exit code."""
    if command.inspect is not None:
        print(printable(inspect(command.inspect), lines=True))
        return 0
    if command.verify is not None:
        print(printable(verify(command.verify)))
        return 0
    if not command.output:
        raise ConfigError("--output is missing; give the model folder to make, for instance checkpoints/open-sora-1.2")
    check_not_embedded(command.output)
    output = storage.local_path(command.output, "--output")
    unsaid: dict[str, int] = {}
    with Progress(command.quiet) as bar:
        if command.export_transformer is not None:
            storage.local_path(command.export_transformer, "--export-transformer")
            unsaid = export_transformer(command.export_transformer, output, command.dtype, bar.update, bar.begin)
        else:
            named = command.sources or hub.PUBLISHED[command.family or OPEN_SORA_1_2.name]
            for name in hub.COMMITS.keys() & named.values():
                if command.revision is None and not Path(name).exists():
                    import_torch(name)  # now, and not after gigabytes have come
            sources = {part: find(part, name, command.revision) for part, name in named.items()}
            base = None if command.family is None else PUBLISHED[command.family]
            convert(sources, output, command.dtype, bar.update, bar.begin, base)
    if command.export_transformer is None:
        print(printable(inspect(str(output)), lines=True))
        return 0
    print(printable(f"{output}: written"))
    for name, value in unsaid.items():
        print(f'the file does not say that {name} is {value}; to read it, put "{name}": {value} into a config.json')
    return 0


class Progress:
    """A progress bar in bytes, which starts when their number is known."""

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
    """The content of a model folder, as text; of adapters, what they hold and the model that they change."""
    base, files = find_base(path)
    lines = [f"{file}: {_describe_adapters(read_adapters(file))}" for file in reversed(files)]
    if files and is_unfinished_run(base):
        return "\n".join([*lines, f"{base}: a checkpoint of a training run"])
    model = open_model(base)
    lines.append(f"{base}: {model.config.name}")
    for part in (part_name(part, model.config) for part in PARTS):
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
        commit = f", commit {record['commit']}" if "commit" in record else ""
        lines.append(f"  from {record.get('source', 'training here')}{commit}")
        if part == model.config.transformer_part:
            lines.append(f"  trained with {name_patterns(model.trained_with)}")
        for name, source in record.get("source_files", {}).items():
            lines.append(f"  {name}: {source['bytes']} bytes, sha256 {source['sha256']}")
    words = f"{model.tokenizer.vocab_size} ids" if model.tokenizer else "absent; it comes with --text-encoder"
    return "\n".join([*lines, f"tokenizer: {words}"])


def verify(path: str) -> str:
    """Read all files of the parameters in a model folder and compare their checksums; a line of text.

    Raises:
      ConfigError: files are missing or have changed, or the folder has no checksums.
    """
    storage.local_path(path, "--verify")
    base, files = find_base(path)  # which compares the checksums of adapters
    if files and is_unfinished_run(base):
        return f"{path}: the adapters are as they were written; their base {base} is a checkpoint, without checksums"
    model = open_model(base)
    for part, record in model.parts.items():
        if not record.get("crc32"):
            raise ConfigError(f"{path} has no checksums of {part}: an earlier version wrote it; convert it again")
        check_files(model.folder / "params" / part, record)
    count = len(files) + sum(len(record["files"]) for record in model.parts.values())
    parts = [*model.parts, *(["adapters"] if files else [])]
    return f"{path}: all {count} files of {', '.join(parts)} are as they were written"


def _describe_adapters(adapters: Adapters) -> str:
    factors = adapters.factors
    ranks = sorted({x.shape[-1] for name, x in factors.items() if name.endswith("/a")})
    dtypes = sorted({x.dtype.name for x in factors.values()})
    return (
        f"LoRA adapters of {adapters.base}, rank {', '.join(map(str, ranks))}, "
        f"{_short(sum(x.size for x in factors.values()))} parameters in {', '.join(dtypes)}\n"
        f"  trained with {name_patterns(adapters.trained_with)}"
    )


def _short(count: int) -> str:
    """A number with an SI prefix: 1208872772 → 1.209 G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g} {letter}"
    return str(count)


def read(arguments: Sequence[str]) -> ConvertCommand:
    """What the command line asks for."""
    return read_command(ConvertCommand, arguments, "pavdm convert-weights", __doc__, EXAMPLES)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; tensors that do not fit are listed."""
    given = sys.argv[1:] if arguments is None else arguments
    exit_with(lambda: run(read(given)), interrupted="interrupted; nothing was written")


if __name__ == "__main__":
    main()
