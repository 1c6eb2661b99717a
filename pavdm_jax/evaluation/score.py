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
from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.extras import import_extra
from pavdm_jax.evaluation.measure import VideoScores, measure_video
from pavdm_jax.evaluation.summary import as_json, protocols, summarise, table
from pavdm_jax.evaluation.videos import find_videos
from pavdm_jax.outputs import check_output, new_file

EXAMPLES = """
examples:
  pavdm evaluate score ours/ theirs/ --output scores.json
  pavdm evaluate score a.mp4 b.mp4
"""


@dataclass(frozen=True)
class ScoreConfig:
    """Which videos to score, and where to write the scores."""

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO ...")] = ()
    """files, or folders with videos in them; the videos of a folder are of one system"""
    output: str | None = None
    """a JSON file for the scores of every video, the curves and how each was measured"""


def score(config: ScoreConfig) -> dict[str, Any]:
    """Print a table of all scores, write them to the output, and return them as JSON values.

    A video that cannot be read is named in one line, left out and counted.

    Raises:
      ConfigError: there are no videos, none of them can be read, or a library is missing.
    """
    output = None if config.output is None else check_output(config.output, (".json",))
    videos = find_videos(config.videos)
    for library in ("cv2", "scenedetect"):
        import_extra(library)
    scores: list[VideoScores] = []
    skipped: dict[str, str] = {}
    for video in tqdm(videos, "scoring", unit="video"):
        try:
            scores.append(measure_video(video))
        except ConfigError as error:
            skipped[str(video.path)] = str(error)
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    if not scores:
        raise ConfigError(f"none of the {len(videos)} videos can be read")
    summaries = summarise(scores)
    print(table(summaries))
    if skipped:
        print(f"{len(skipped)} of {len(videos)} videos were skipped, because they cannot be read")
    result = {
        "protocols": protocols(),
        "systems": as_json(summaries),
        "videos": as_json(scores),
        "skipped": skipped,
    }
    if output is not None:
        with new_file(output) as partial:
            partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        print(f"scores, curves and protocols: {output}")
    return result


def main(arguments: Sequence[str]) -> None:
    """The command line after `pavdm evaluate score`."""

    def work() -> int:
        score(read_command(ScoreConfig, arguments, "pavdm evaluate score", __doc__, EXAMPLES))
        return 0

    exit_with(work, interrupted="interrupted; nothing was written")
