"""The scores as a page, `report.html`: one file that opens offline, with a table, curves, frames and small videos."""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation.extras import import_extra
from pavdm_jax.evaluation.identity import UNITS
from pavdm_jax.evaluation.measure import CLIP_METRICS
from pavdm_jax.evaluation.plots import curves_figure
from pavdm_jax.outputs import new_file
from pavdm_jax.video.clips import read_clip

MAX_VIDEO_BYTES = 2 * 2**20
"""Of a video that is put into the page; of larger ones only frames are shown."""
PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
SHARES = (0, 0.25, 0.5, 0.75, 1)
"""Where in a video its frames are shown: at 0, 15, 30, 45 and 60 s of a minute."""
FRAME_PX = 160
ROWS = 6
"""Names of videos that are shown, each with all systems that have a video of the name."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin-bottom: .3rem }
h3 small { font-weight: normal; color: #555 }
table { border-collapse: collapse } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #444; vertical-align: bottom }
td small { display: block; color: #555; white-space: nowrap } .wide { overflow-x: auto }
.system { display: flex; gap: .3rem; align-items: flex-end; margin: .2rem 0; flex-wrap: wrap }
.system b { width: 11rem; align-self: center; overflow-wrap: anywhere } figure { margin: 0; text-align: center }
figcaption { font-size: .75rem; color: #555 } img, video { height: 130px; image-rendering: pixelated; display: block }
.curves svg { width: 100%; height: auto } dt { font-weight: 600 } dd { margin: 0 0 .5rem 1.2rem; color: #333 }
"""


def write_report(path: Path, result: dict[str, Any]) -> None:
    """Write the page, and the curves beside it as a picture of the same name, `.png`.

    Args:
      path: of the page.
      result: the scores as in the JSON file (`score.score`); the videos must still be where they were.
    """
    figure = curves_figure(result["systems"], {metric.name: metric.unit for metric in CLIP_METRICS} | UNITS)
    parts = [
        f"<h1>Scores of {len(result['videos'])} videos of {len(result['systems'])} systems</h1>",
        "<p>Means over videos, in brackets 95 % intervals; how each score is measured is told at the end.</p>",
        f"<div class=wide>{_table(result)}</div>",
        "<h2>From the beginning to the end</h2>",
        "<p>The last 15 % of a video minus its first 15 %: a score that holds is near 0.</p>",
        f"<div class=wide>{_contrasts(result)}</div>",
        f"<h2>Over time</h2><div class=curves>{_svg(figure)}</div>",
        "<h2>Videos</h2>",
        *_videos(result),
        _skipped(result),
        _tracker(result),
        "<h2>How it was measured</h2>",
        "<dl>"
        + "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in result["protocols"].items())
        + "</dl>",
    ]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Scores of videos</title><style>{STYLE}</style>"
    with new_file(path) as partial:
        partial.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")
    with new_file(path.with_suffix(".png")) as partial:
        figure.savefig(partial, format="png", dpi=150)


def _svg(figure: Any) -> str:
    drawn = io.StringIO()
    with import_extra("matplotlib").rc_context({"svg.fonttype": "none", "svg.hashsalt": "pavdm"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _table(result: dict[str, Any]) -> str:
    """A row a system, a column a score."""
    systems = result["systems"]
    names = list(dict.fromkeys(name for summary in systems.values() for name in summary["means"]))
    distances = result.get("frechet_distances", {})
    networks = list(dict.fromkeys(name for of_system in distances.values() for name in of_system))
    head = ["system", "videos", "scenes", *names, *(f"Fréchet distance {name}" for name in networks)]
    rows = []
    for name, summary in systems.items():
        cells = [html.escape(name), str(summary["videos"]), _cell(summary["scenes"])]
        cells += [_cell(summary["means"].get(score)) for score in names]
        cells += [_cell(distances[name].get(network), "distance") for network in networks]
        rows.append(cells)
    return _rows(head, rows)


def _contrasts(result: dict[str, Any]) -> str:
    systems = result["systems"]
    names = list(dict.fromkeys(name for summary in systems.values() for name in summary["contrasts"]))
    rows = [
        [html.escape(name), *(_cell(summary["contrasts"].get(score), sign="+") for score in names)]
        for name, summary in systems.items()
    ]
    return _rows(["system", *names], rows)


def _rows(head: list[str], rows: list[list[str]]) -> str:
    titles = "".join(f"<th>{html.escape(title).replace('_', ' ')}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _cell(estimate: dict[str, Any] | None, value: str = "mean", sign: str = "") -> str:
    if estimate is None or estimate.get(value) is None:
        return "-"
    shown = f"{estimate[value]:{sign}.3g}"
    if estimate["low"] is None:
        return shown
    return f"{shown}<small>[{estimate['low']:{sign}.3g}, {estimate['high']:{sign}.3g}]</small>"


def _videos(result: dict[str, Any]) -> list[str]:
    """The first few names of videos, each with the systems one above the other."""
    names = list(dict.fromkeys(Path(video["path"]).stem for video in result["videos"]))
    parts = []
    for name in names[:ROWS]:
        videos = [video for video in result["videos"] if Path(video["path"]).stem == name]
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
        for share in SHARES:
            at = min(share * seconds, seconds - 1 / video["fps"])
            size = _reduced(video["height"], video["width"])
            frame = read_clip(str(path), max(0.0, at), video["fps"], 1, size)[0]
            caption = f"<figcaption>{share * seconds:.0f} s</figcaption>"
            shown.append(f'<figure><img src="{_picture(frame)}" alt="frame">{caption}</figure>')
    except (ConfigError, OSError) as error:
        shown.append(f"<span>cannot be shown: {html.escape(str(error))}</span>")
    return "".join(shown) + "</div>"


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


def _skipped(result: dict[str, Any]) -> str:
    if not result["skipped"]:
        return ""
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in result["skipped"].values())
    return f"<h2>Left out</h2><ul>{items}</ul>"


def _tracker(result: dict[str, Any]) -> str:
    """The error of the tracker that reads the shapes, a row a condition, kind and size."""
    errors = result.get("tracker_errors")
    if not errors:
        return ""
    rows = [[html.escape(v) if isinstance(v, str) else _number(v) for v in error.values()] for error in errors]
    return (
        "<h2>The tracker's own error</h2><p>Of what is read from rendered frames whose truth is known: the share in "
        "which a shape is seen with its colour, kind and size within 3 pixels, what is seen too many in a frame, and "
        f"medians of errors.</p><div class=wide>{_rows(list(errors[0]), rows)}</div>"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
