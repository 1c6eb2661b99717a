"""The tables of the page of scores, as HTML; each takes the scores as they are in the JSON file."""

import html
from collections import Counter
from typing import Any

from pavdm_jax.evaluation.summary import UNITS


def claims(result: dict[str, Any]) -> str:
    """What the scores say of each claim, in words."""
    if not result.get("claims"):
        return ""
    verdicts = result["claims"]
    counts = Counter(verdict["decision"] for verdict in verdicts)
    told = ", ".join(
        f"{counts[decision]} {words}"
        for decision, words in (("holds", "hold"), ("does not hold", "do not hold"), ("not decided", "are not decided"))
    )
    note = f"<p>{html.escape(result['note'])}</p>" if result.get("note") else ""
    rows = []
    for verdict in verdicts:
        claim = verdict["claim"]
        measured = f"{_words(claim['metric'])}{', end - start' if claim['change'] else ''}"
        rows.append(
            [
                html.escape(claim["text"]),
                f"{measured} <small>{html.escape(UNITS[claim['metric']])}</small>",
                f"{html.escape(claim['better'])}: {_number(verdict['better'])}<br>"
                f"{html.escape(claim['worse'])}: {_number(verdict['worse'])}",
                _cell(verdict["difference"], sign="+"),
                f"<b>{verdict['decision']}</b>: {html.escape(verdict['why'])}",
            ]
        )
    head = ["claim", "measured by", "means over the prompts of both", "difference", "on these videos"]
    return (
        f"<h2>What was claimed</h2>{note}<p>Of {len(verdicts)} claims {told}. A claim is decided if the 95 % interval "
        "of the difference between two systems, prompt by prompt, lies on one side of 0. Each is decided on its own: "
        "where systems do not differ, one in twenty is decided by chance.</p>"
        f"{_rows(head, rows, 'words')}"
    )


def means(result: dict[str, Any]) -> str:
    """A row a system, a column a score."""
    systems = result["systems"]
    names = list(dict.fromkeys(name for summary in systems.values() for name in summary["means"]))
    distances = result.get("frechet_distances", {})
    networks = list(dict.fromkeys(name for of_system in distances.values() for name in of_system))
    head = ["system", "videos", *map(_with_unit, ["scenes", *names])]
    head += [f"Fréchet distance {_words(name)}" for name in networks]
    rows = []
    for name, summary in systems.items():
        cells = [html.escape(name), str(summary["videos"]), _cell(summary["scenes"])]
        cells += [_cell(summary["means"].get(score)) for score in names]
        cells += [_cell(distances[name].get(network), "distance") for network in networks]
        rows.append(cells)
    return _rows(head, rows)


def contrasts(result: dict[str, Any]) -> str:
    """How much each score changes from the beginning of a video to its end: a row a system."""
    systems = result["systems"]
    names = list(dict.fromkeys(name for summary in systems.values() for name in summary["contrasts"]))
    rows = [
        [html.escape(name), *(_cell(summary["contrasts"].get(score), sign="+") for score in names)]
        for name, summary in systems.items()
    ]
    return _rows(["system", *map(_with_unit, names)], rows)


def skipped(result: dict[str, Any]) -> str:
    """What could not be scored, and why."""
    if not result["skipped"]:
        return ""
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in result["skipped"].values())
    return f"<h2>Left out</h2><ul>{items}</ul>"


def runs(result: dict[str, Any]) -> str:
    """What the videos of each system were made with, as far as it is noted."""
    known = {name: run for name, run in result.get("runs", {}).items() if run["known"]}
    if not known:
        return ""
    rows = []
    for name, run in known.items():
        time = "-"
        if run["timed"]:
            time = f"{run['seconds_of_computing']:.0f} s<small>for {run['timed']} of {run['videos']} videos</small>"
        made_by = [", ".join(run["checkpoints"]), *(f"weights {one}" for one in run["weights"]), *run["trained_with"]]
        made_on = [*(f"commit {one}" for one in run["commits"]), *run["devices"]]
        rows.append([html.escape(name), _lines(made_by), _settings(run), _lines(made_on), time])
    missing = sum(run["videos"] - run["known"] for run in result["runs"].values())
    told = f"<p>Of {missing} other video{'s' * (missing != 1)} nothing is noted.</p>" if missing else ""
    head = ["system", "model, and the noise levels it was trained with", "settings", "made with", "computing"]
    return f"<h2>What was run</h2>{_rows(head, rows, 'words')}{told}"


def _settings(run: dict[str, Any]) -> str:
    """The settings in words: of the method, its window or clip, and where the videos begin."""
    settings = run["settings"]
    own = settings.get("window") or settings.get("clip") or {}
    told = {"method": settings.get("method"), **own}
    told |= {name: settings.get(name) for name in ("frames", "height", "width", "fps", "guidance_scale", "dtype")}
    given = settings.get("start_frames")
    lines = [", ".join(f"{_words(name)} {value}" for name, value in told.items() if value not in (None, False))]
    lines += [] if given is None else [f"begins with a clip of {given} frames" if given else "begins with the text"]
    lines += [f"differ between videos: {', '.join(run['differing']).replace('_', ' ')}"] if run["differing"] else []
    return _lines(lines)


def tracker(result: dict[str, Any]) -> str:
    """The error of the tracker that reads the shapes, a row a condition, kind and size."""
    errors = result.get("tracker_errors")
    if not errors:
        return ""
    rows = [[html.escape(v) if isinstance(v, str) else _number(v) for v in error.values()] for error in errors]
    return (
        "<h2>The tracker's own error</h2><p>Of what is read from rendered frames whose truth is known: the share in "
        "which a shape is seen with its colour, kind and size within 3 pixels, what is seen too many in a frame, and "
        f"medians of errors.</p>{_rows(list(map(_words, errors[0])), rows)}"
    )


def protocols(result: dict[str, Any]) -> str:
    """How each score is measured."""
    told = (f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in result["protocols"].items())
    return f"<h2>How it was measured</h2><dl>{''.join(told)}</dl>"


def _rows(head: list[str], rows: list[list[str]], kind: str = "numbers") -> str:
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in rows)
    return f"<div class=wide><table class={kind}><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"


def _words(name: str) -> str:
    return html.escape(name.replace("_", " "))


def _with_unit(name: str) -> str:
    return f"{_words(name)}<br><small>{html.escape(UNITS[name])}</small>"


def _lines(texts: list[str]) -> str:
    return "<br>".join(html.escape(text) for text in texts if text) or "-"


def _cell(estimate: dict[str, Any] | None, value: str = "mean", sign: str = "") -> str:
    if estimate is None or estimate.get(value) is None:
        return "-"
    shown = _number(estimate[value], sign)
    if estimate["low"] is None:
        return shown
    return f"{shown}<small>[{_number(estimate['low'], sign)}, {_number(estimate['high'], sign)}]</small>"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3g}"
