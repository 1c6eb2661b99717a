"""Curves over time of all systems, drawn to be told apart in print and by colour-blind readers; and their frames."""

import math
import textwrap
from typing import Any

import numpy as np

from pavdm_jax.evaluation.extras import import_extra

PALETTE = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito, "Color universal design", 2008, without yellow, which is lost on white paper."""
LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dv<>pP*X"
COLUMNS = 3
MOST_BANDS = 3
"""Of more systems than that, bands would hide each other: the first one alone has its band."""


def curves_figure(systems: dict[str, Any], labels: dict[str, str] | None = None) -> Any:
    """A panel for each score with its mean and 95 % band over time, and one for similarity against distance.

    Of many systems the first one's band is drawn alone, which the legend says; the others' intervals are in the tables.

    Args:
      systems: by name, the summaries as they are in the JSON file.
      labels: by score, what stands at its axis; the score's name where there is none.

    Returns:
      A `matplotlib.figure.Figure`.
    """
    labels = labels or {}
    bands = len(systems) if len(systems) <= MOST_BANDS else 1
    names = list(dict.fromkeys(name for summary in systems.values() for name in summary["curves"]))
    rows = math.ceil((len(names) + 1) / COLUMNS)
    figure = import_extra("matplotlib.figure").Figure(figsize=(4 * COLUMNS, 2.8 * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for panel, name in zip(panels, names, strict=False):
        for number, summary in enumerate(systems.values()):
            points = summary["curves"].get(name, [])
            _draw(panel, number, summary["clip_seconds"], points, number < bands)
        panel.set(title=name.replace("_", " "), xlabel="seconds", ylabel=textwrap.fill(labels.get(name, ""), 22))
    panel = panels[len(names)]
    for number, summary in enumerate(systems.values()):
        distances = [float(distance) for distance in summary["similarity"]]
        _draw(panel, number, distances, summary["similarity"].values(), number < bands)
    panel.set(title="similarity of two frames", xlabel="frames between them", ylabel="SSIM")
    for unused in panels[len(names) + 1 :]:
        unused.set_axis_off()
    handles = [panels[0].plot([], [], **_style(number), label=_plain(name))[0] for number, name in enumerate(systems)]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(systems)), frameon=False)
    if bands < len(systems):
        legend.set_title(f"The band is the 95 % interval of {_plain(next(iter(systems)))}.")
    return figure


def frames_figure(frames: dict[str, dict[str, dict[float, np.ndarray]]]) -> Any:
    """Frames of the same prompts by every system: a block a prompt, a row a system, a column a moment.

    Args:
      frames: by prompt, system and second, uint8 `[h, w, 3]`; a system need not have all prompts.

    Returns:
      A `matplotlib.figure.Figure`.
    """
    systems = list(dict.fromkeys(system for of_prompt in frames.values() for system in of_prompt))
    moments = max((len(shown) for of_prompt in frames.values() for shown in of_prompt.values()), default=1)
    shape = max(1, len(systems)), max(1, len(frames))
    figure = import_extra("matplotlib.figure").Figure(
        figsize=(0.85 * moments * shape[1] + 2, 0.85 * shape[0] + 0.8), layout="constrained"
    )
    blocks = list(figure.subfigures(1, shape[1], squeeze=False).flat)
    for number, (block, (prompt, of_prompt)) in enumerate(zip(blocks, frames.items(), strict=False)):
        block.suptitle("\n".join(textwrap.wrap(_plain(prompt), 12 * moments)), fontsize=9)
        panels = block.subplots(shape[0], moments, squeeze=False)
        for number_of_row, (row, system) in enumerate(zip(panels, systems, strict=False)):
            for panel in row:
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
            if number == 0:
                row[0].set_ylabel(_plain(system), rotation=0, ha="right", va="center", fontsize=8)
            for panel, (second, frame) in zip(row, of_prompt.get(system, {}).items(), strict=False):
                panel.imshow(frame)
                panel.set_title(f"{second:.0f} s" if number_of_row == 0 else "", fontsize=8)
    return figure


def _plain(text: str) -> str:
    """A text of others' as it is: matplotlib takes what stands between two dollars for a formula."""
    return text.replace("$", r"\$")


def _style(number: int) -> dict[str, Any]:
    """Neighbours differ in colour, line and marker."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": LINES[number % len(LINES)],  # 4 lines and 7 colours: 28 pairs
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 1.4,
    }


def _draw(panel: Any, number: int, places: list[float], points: Any, with_band: bool) -> None:
    """A curve, and its band if it has one; points without a value are gaps."""
    drawn = [(at, point) for at, point in zip(places, points, strict=False) if point["mean"] is not None]
    panel.plot([at for at, _ in drawn], [point["mean"] for _, point in drawn], **_style(number))
    band = [(at, point["low"], point["high"]) for at, point in drawn if point["low"] is not None]
    if band and with_band:
        panel.fill_between(*zip(*band, strict=True), color=PALETTE[number % len(PALETTE)], alpha=0.13, linewidth=0)
    panel.grid(alpha=0.25, linewidth=0.5)
    panel.spines[["top", "right"]].set_visible(False)
