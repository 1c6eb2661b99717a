"""Score videos of any origin: `pavdm evaluate score FOLDER --output scores.json`.

Each video is cut into clips of two seconds, so that every score is a curve over time; the videos of a folder are one
system, whose means are given with 95 % intervals. Needs `pip install 'pavdm_jax[metrics]'`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from pavdm_jax.cli import exit_with, read_command
from pavdm_jax.data.shapes_world import named_world
from pavdm_jax.errors import ConfigError, printable
from pavdm_jax.evaluation import frechet_networks, vbench_networks
from pavdm_jax.evaluation.claims import check_claims, judge
from pavdm_jax.evaluation.comparison import read_comparison
from pavdm_jax.evaluation.extras import import_extra
from pavdm_jax.evaluation.features import video_features
from pavdm_jax.evaluation.measure import VideoScores, measure_video
from pavdm_jax.evaluation.networks import Network, load_networks
from pavdm_jax.evaluation.reference import Features, Refused, check_reference, distance_protocol, reference_distances
from pavdm_jax.evaluation.report import write_report
from pavdm_jax.evaluation.runs import what_was_run
from pavdm_jax.evaluation.score_files import read_scores, with_earlier
from pavdm_jax.evaluation.summary import as_json, protocols, score_names, summarise, table
from pavdm_jax.evaluation.truth import reported_errors
from pavdm_jax.evaluation.vbench_long import CONSISTENCIES, MappingTable, read_mapping_table
from pavdm_jax.evaluation.videos import find_videos
from pavdm_jax.outputs import check_output, new_file

EXAMPLES = """
examples:
  pavdm evaluate score ours/ theirs/ --output scores.json --report report.html
  pavdm evaluate score a.mp4 b.mp4
  pavdm evaluate score comparison/ --world hidden --claims comparison.py --report report.html
  pavdm evaluate score more/ --earlier scores.json --output all.json
  pavdm evaluate score ours/ --networks dino_vitb16 clip_vit_b_32
  pavdm evaluate score ours/ theirs/ --reference real/ --networks videomae_vit_g_ssv2
"""


@dataclass(frozen=True)
class ScoreConfig:
    """Which videos to score, and where to write the scores."""

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO ...")] = ()
    """files, or folders with videos in them; the videos of a folder are of one system"""
    output: str | None = None
    """a JSON file for the scores of every video, the curves and how each was measured"""
    report: str | None = None
    """an HTML page with tables, curves, and frames and small videos of six prompts, which opens offline; beside it two
    pictures: .png of the curves, -frames.png of some videos"""
    earlier: tuple[str, ...] = ()
    """files that --output wrote before, of which all videos count that are not scored now; they need not be there, so a
    comparison can be made in parts, on several machines"""
    world: str | None = None
    """simple or hidden: the videos are of this shapes world, and are scored against their prompts, too (identity,
    drift, motion); prompts are in the files' comments, or beside each in a .json as `pavdm evaluate make` writes it"""
    networks: tuple[str, ...] = ()
    """networks to run, whose outputs are kept in a file beside each video: those of VBench, dino_vitb16 clip_vit_b_32
    dinov2_vitb14 dreamsim_ensemble amt_s raft_things laion_aesthetic musiq_spaq, or videomae_vit_g_ssv2 for FVD"""
    i3d: str | None = None
    """the file i3d_torchscript.pt of StyleGAN-V, for FVD"""
    vae: str | None = None
    """a model folder, or demo: a distance between latents of its VAE, where there are no networks for FVD"""
    reference: str | None = None
    """a folder of real videos, from which the distance of each system is measured (FVD)"""
    claims: str | None = None
    """a definition of a comparison, as of `pavdm evaluate make`: what it claims of its systems is judged; they are
    shown in its order"""
    subject_mapping_table: str | None = None
    """VBench's file configs/subject_mapping_table.yaml, for its subject consistency between clips"""
    background_mapping_table: str | None = None
    """VBench's file configs/background_mapping_table.yaml"""


def score(config: ScoreConfig) -> dict[str, Any]:
    """Print a table of all scores, write them to the output, and return them as JSON values.

    A video that cannot be scored is named in one line, left out and counted.

    Raises:
      ConfigError: there are no videos, none of them can be scored, or a library or a network is missing.
    """
    output = None if config.output is None else check_output(config.output, (".json",))
    report = None if config.report is None else check_output(config.report, (".html",))
    if config.world is not None:
        named_world(config.world)  # a wrong name is told before the work
    comparison = None if config.claims is None else read_comparison(config.claims)
    check_claims(() if comparison is None else comparison.claims)
    earlier = [video for file in config.earlier for video in read_scores(file)]
    if earlier and config.reference is not None:
        raise ConfigError("--reference needs the videos themselves, which --earlier has not; leave one of them out")
    videos = find_videos(config.videos) if config.videos or not earlier else []
    reference = [] if config.reference is None else find_videos([config.reference])
    for library in ("cv2", "scenedetect", "matplotlib"):
        import_extra(library)
    tables, networks = _tables(config), _networks(config)
    of_reference: list[Features] = []
    scores: list[VideoScores] = []
    features: dict[str, list[Features]] = {}
    skipped: dict[str, str] = {}
    for video in tqdm(reference, "reference", unit="video", disable=not reference):
        try:
            of_reference.append(video_features(video.path, networks))
        except ConfigError as error:
            skipped[str(video.path)] = str(error)
            tqdm.write(printable(f"skipped: {error}"), file=sys.stderr)
    if reference and not of_reference:
        first = next(iter(skipped.values()))
        raise ConfigError(f"none of the {len(reference)} reference videos can be used; the first: {first}")
    if reference:
        check_reference(of_reference)
    for video in tqdm(videos, "scoring", unit="video"):
        try:
            found, outputs = measure_video(video, networks, tables, config.world is not None)
        except ConfigError as error:
            skipped[str(video.path)] = str(error)
            tqdm.write(printable(f"skipped: {error}"), file=sys.stderr)
            continue
        scores.append(found)
        features.setdefault(video.system, []).append(outputs)
    if videos and not scores:
        raise ConfigError(f"none of the {len(videos)} videos can be scored; the first: {skipped[str(videos[0].path)]}")
    scores = with_earlier(scores, earlier) if earlier else scores
    if comparison is not None:  # systems in its order, others behind
        order = {system.name: number for number, system in enumerate(comparison.systems)}
        scores.sort(key=lambda video: order.get(video.system, len(order)))
    summaries = summarise(scores)
    result = {
        "protocols": protocols(score_names(summaries)),
        "systems": as_json(summaries),
        "videos": as_json(scores),
        "skipped": skipped,
        "runs": as_json(what_was_run(scores)),
    }
    print(printable(table(summaries), lines=True))
    if comparison is not None:
        verdicts = [judge(claim, scores) for claim in comparison.claims]
        result |= {"note": comparison.note, "claims": as_json(verdicts)}
        for verdict in verdicts:
            print(printable(f"{verdict.decision}: {verdict.claim.text} ({verdict.claim.metric}: {verdict.why})"))
    if config.world is not None:
        result["tracker_errors"] = as_json(reported_errors(config.world))
    if reference:
        distances = reference_distances(features, of_reference)
        result["frechet_distances"] = as_json(distances)
        names = {name for of_system in distances.values() for name in of_system}
        result["protocols"] |= {f"frechet_distance_{name}": distance_protocol(name) for name in sorted(names)}
        _print_distances(distances)
    if skipped:
        print(f"{len(skipped)} of {len(reference) + len(videos)} videos were skipped, because they cannot be scored")
    if output is not None:
        with new_file(output) as partial:
            partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        print(printable(f"scores, curves and protocols: {output}"))
    if report is not None:
        has_frames = write_report(report, result)
        of_frames = f", {report.stem}-frames.png" if has_frames else ""
        print(printable(f"report: {report}; pictures: {report.stem}.png of the curves{of_frames}"))
    return result


def _tables(config: ScoreConfig) -> dict[str, MappingTable]:
    named = {name: getattr(config, f"{name.removesuffix('_consistency')}_mapping_table") for name in CONSISTENCIES}
    return {name: read_mapping_table(path) for name, path in named.items() if path is not None}


def _networks(config: ScoreConfig) -> list[Network]:
    loaders = vbench_networks.LOADERS | frechet_networks.LOADERS
    names = list(config.networks)
    if config.i3d is not None:
        loaders = loaders | {"i3d_kinetics400": frechet_networks.i3d_loader(config.i3d)}
        names.append("i3d_kinetics400")
    networks = load_networks(names, loaders)
    if config.vae is not None:
        from pavdm_jax.evaluation.vae_network import VaeLatents  # JAX's programs, which nothing else here needs

        networks.append(VaeLatents(config.vae))
    return networks


def _print_distances(distances: dict) -> None:
    for system, of_system in distances.items():
        for network, found in of_system.items():
            if isinstance(found, Refused):
                print(printable(f"{system}: no Fréchet distance by {network}: {found.refused}"))
                continue
            shown = "" if found.low is None else f" [{found.low:.4g}, {found.high:.4g}]"
            flat = f"; features vary in {found.rank} directions only" if found.rank < found.dimension else ""
            clips = f"{found.samples[0]} and {found.samples[1]} clips"
            said = f"{found.distance:.4g}{shown} ({clips}, {found.dimension} numbers{flat})"
            print(printable(f"{system}: Fréchet distance by {network} {said}"))


def main(arguments: Sequence[str]) -> None:
    """The command line after `pavdm evaluate score`."""

    def work() -> int:
        score(read_command(ScoreConfig, arguments, "pavdm evaluate score", __doc__, EXAMPLES))
        return 0

    exit_with(work, interrupted="interrupted; nothing was written")
