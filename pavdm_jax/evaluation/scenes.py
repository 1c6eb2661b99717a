"""How many scenes a video has, counted by PySceneDetect itself."""

import logging
from pathlib import Path

from pavdm_jax.errors import ConfigError, first_line
from pavdm_jax.evaluation.extras import import_extra


def count_scenes(path: str | Path) -> int:
    """Scenes of a video file: the cuts that PySceneDetect's `AdaptiveDetector` finds at its default settings, plus one.

    The rule changed a little: release 0.6 allows scenes of 13 frames, 0.7 of 15 and more. `scenes_protocol` names the
    release.
    """
    scenedetect = import_extra("scenedetect")
    logging.getLogger("pyscenedetect").setLevel(logging.ERROR)
    try:  # without start_in_scene, a video without cuts has no scene
        return len(scenedetect.detect(str(path), scenedetect.AdaptiveDetector(), start_in_scene=True))
    except scenedetect.VideoOpenFailure as error:
        raise ConfigError(f"{path} cannot be read by PySceneDetect ({first_line(error)})") from None


def scenes_protocol() -> str:
    """How scenes are counted, with the library's release."""
    release = import_extra("scenedetect").__version__
    return f"PySceneDetect {release}, AdaptiveDetector with default settings, scenes = cuts + 1"
