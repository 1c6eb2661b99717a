"""With what a video was made, as noted beside it or in it."""

import json
from pathlib import Path
from typing import Any

from pavdm_jax.video.writer import read_comment


def read_settings(path: Path) -> dict[str, Any] | None:
    """What is noted beside a video or in its comment, with its settings under `settings`; None if it is of others."""
    try:
        beside = json.loads(path.with_suffix(".json").read_text(encoding="utf-8-sig"))
        if isinstance(beside["settings"], dict):
            return beside
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        pass
    try:
        comment = json.loads(read_comment(path) or "")
        is_ours = isinstance(comment, dict) and {"weights", "method"} <= comment.keys()
        return {"settings": comment} if is_ours else None
    except (ValueError, RecursionError, TypeError):
        return None
