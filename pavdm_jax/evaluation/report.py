"""The scores as a page, `report.html`: one file that opens offline, with a table, curves, frames and small videos."""

import base64
import contextlib
import html
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import report_tables
from pavdm_jax.evaluation.extras import import_extra
from pavdm_jax.evaluation.plots import curves_figure, frames_figure
from pavdm_jax.evaluation.summary import UNITS
from pavdm_jax.outputs import new_file
from pavdm_jax.video.clips import read_clip

MAX_VIDEO_BYTES = 2 * 2**20
"""Of a video that is put into the page; of larger ones only frames are shown."""
PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
SHARES = (0, 0.25, 0.5, 0.75, 1)
"""Where in a video its frames are shown: at 0, 15, 30, 45 and 60 s of a minute."""
FRAME_PX = 160
PICTURED = 3
"""Names of videos whose frames make the picture beside the page."""
ROWS = 6
"""Names of videos that are shown, each with all systems that have a video of the name."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin-bottom: .3rem }
h3 small { font-weight: normal; color: #555 } p, dd { max-width: 46rem }
table { border-collapse: collapse } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #444; vertical-align: bottom }
td small { display: block; color: #555; white-space: nowrap } .wide { overflow-x: auto }
.words td, .words th { text-align: left; vertical-align: top }
.system { display: flex; gap: .3rem; align-items: flex-end; margin: .2rem 0; flex-wrap: wrap }
.system b { width: 11rem; align-self: center; overflow-wrap: anywhere } figure { margin: 0; text-align: center }
figcaption { font-size: .75rem; color: #555 } img, video { height: 130px; image-rendering: pixelated; display: block }
.curves svg { width: 100%; height: auto } dt { font-weight: 600 } dd { margin: 0 0 .5rem 1.2rem; color: #333 }
"""


def write_report(path: Path, result: dict[str, Any]) -> bool:
    """Write the page, and beside it as pictures the curves, `NAME.png`, and frames of some videos, `NAME-frames.png`.

    Args:
      path: of the page.
      result: the scores as in the JSON file (`score.score`); of videos that are not where they were there are only
        scores, and without any video no picture of frames.

    Returns:
      Whether there is a picture of frames.
    """
    there = [video for video in result["videos"] if Path(video["path"]).is_file()]
    figure = curves_figure(result["systems"], UNITS)
    systems = len(result["systems"])
    parts = [
        f"<h1>Scores of {len(result['videos'])} videos of {systems} system{'s' * (systems != 1)}</h1>",
        report_tables.claims(result),
        "<h2>All scores</h2>",
        "<p>Means over videos, in brackets 95 % intervals; how each score is measured is told at the end.</p>",
        report_tables.means(result),
        "<h2>From the beginning to the end</h2>",
        "<p>The last 15 % of a video minus its first 15 %: a score that holds is near 0.</p>",
        report_tables.contrasts(result),
        f"<h2>Over time</h2><p>Means over videos; bands are 95 % intervals.</p><div class=curves>{_svg(figure)}</div>",
        "<h2>Videos</h2>",
        *_videos(there, len(result["videos"]) - len(there)),
        report_tables.skipped(result),
        report_tables.runs(result),
        report_tables.tracker(result),
        report_tables.protocols(result),
    ]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Scores of videos</title><style>{STYLE}</style>"
    with new_file(path) as partial:
        partial.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")
    with new_file(path.with_suffix(".png")) as partial:
        figure.savefig(partial, format="png", dpi=100)
    if there:
        with new_file(path.with_name(f"{path.stem}-frames.png")) as partial:
            frames_figure(_pictured(there)).savefig(partial, format="png", dpi=100)
    return bool(there)


def _svg(figure: Any) -> str:
    drawn = io.StringIO()
    with import_extra("matplotlib").rc_context({"svg.fonttype": "none", "svg.hashsalt": "pavdm"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _videos(there: list[dict[str, Any]], missing: int) -> list[str]:
    """The first few names of videos, each with the systems one above the other."""
    names = list(dict.fromkeys(Path(video["path"]).stem for video in there))
    parts = []
    if missing:
        parts.append(f"<p>{missing} video{'s are' if missing > 1 else ' is'} not here any more, only scores.</p>")
    for name in names[:ROWS]:
        videos = [video for video in there if Path(video["path"]).stem == name]
        prompts = {video["prompt"] for video in videos}
        prompt = prompts.pop() if len(prompts) == 1 else None
        shown = html.escape(name) if prompt is None else f"{html.escape(prompt)} <small>{html.escape(name)}</small>"
        parts.append(f"<h3>{shown}</h3>")
        parts += [_system(video) for video in videos]
    if len(names) > ROWS:
        parts.append(f"<p>{ROWS} of {len(names)} names are shown.</p>")
    return parts


def _system(video: dict[str, Any]) -> str:
    path, seconds = Path(video["path"]), video["frames"] / video["fps"]
    shown = [f"<div class=system><b>{html.escape(video['system'])}</b>"]
    try:
        if path.suffix.lower() in PLAYABLE and path.stat().st_size <= MAX_VIDEO_BYTES:
            data = f"data:{PLAYABLE[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"
            shown.append(
                f'<figure><video src="{data}" controls loop muted playsinline></video><figcaption>{seconds:.0f} s, '
                f"{video['scenes']} scene{'s' * (video['scenes'] != 1)}{_survival(video)}</figcaption></figure>"
            )
        for second, frame in _moments(video).items():
            caption = f"<figcaption>{second:.0f} s</figcaption>"
            shown.append(f'<figure><img src="{_picture(frame)}" alt="frame at {second:.0f} s">{caption}</figure>')
    except (ConfigError, OSError) as error:
        shown.append(f"<span>cannot be shown: {html.escape(str(error))}</span>")
    return "".join(shown) + "</div>"


def _moments(video: dict[str, Any]) -> dict[float, np.ndarray]:
    """By second, frames of a video at its beginning, its quarters and its end."""
    seconds = video["frames"] / video["fps"]
    size = _reduced(video["height"], video["width"])
    return {
        share * seconds: read_clip(
            video["path"], max(0.0, min(share * seconds, seconds - 1 / video["fps"])), video["fps"], 1, size
        )[0]
        for share in SHARES
    }


def _pictured(there: list[dict[str, Any]]) -> dict[str, dict[str, dict[float, np.ndarray]]]:
    """Frames of a few names of videos, spread over those that most systems have: by prompt, system and second. Videos
    that cannot be read are left out."""
    counts = Counter(Path(video["path"]).stem for video in there)
    names = [name for name, count in counts.items() if count == max(counts.values())]
    chosen = [names[at] for at in np.unique(np.linspace(0, len(names) - 1, PICTURED).round().astype(int))]
    found: dict[str, dict[str, dict[float, np.ndarray]]] = {name: {} for name in chosen}
    for video in there:
        name = Path(video["path"]).stem
        if name in found:
            with contextlib.suppress(ConfigError, OSError):
                found[name][video["system"]] = _moments(video)
    prompts = {Path(video["path"]).stem: video["prompt"] for video in there}
    seeds = Counter(prompts[name] for name in found)  # of a prompt with several, names tell the blocks apart
    return {(seeds[prompts[name]] == 1 and prompts[name]) or name: of_name for name, of_name in found.items()}


def _survival(video: dict[str, Any]) -> str:
    survival = video["means"].get("survival_seconds")
    return "" if survival is None else f",<br>shapes kept {survival:.0f} s"


def _reduced(height: int, width: int) -> tuple[int, int]:
    factor = min(1, FRAME_PX / min(height, width))
    return round(height * factor), round(width * factor)


def _picture(frame: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
