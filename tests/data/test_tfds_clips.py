"""TFDS data sets, made and read without TensorFlow."""

import dataclasses
import sys

import numpy as np
import pytest

from pavdm_jax.config import tiny
from pavdm_jax.data.clips import ShapesClips, open_clips
from pavdm_jax.data.config import ShapesData, TfdsData
from pavdm_jax.errors import ConfigError

MODEL = tiny()  # 16 by 24 pixels


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    from pavdm_jax.data.shapes_tfds import ShapesWorld

    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShapesWorld, "CLIPS", 5)
        ShapesWorld(data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


def test_a_tfds_data_set_is_read_by_name_without_tensorflow(tfds_dir):
    clips = open_clips(
        TfdsData("tfds:shapes_world", tfds_dir, frames=20), dataclasses.replace(MODEL, height=64, width=64)
    )
    assert "tensorflow" not in sys.modules
    made = ShapesClips(ShapesData(34, 5), 64)
    captions = [made.captions(n)[0] for n in range(5)]
    assert len(clips) == 5
    for n in range(len(clips)):
        scene = captions.index(clips.captions(n)[0])
        np.testing.assert_array_equal(clips.frames(n), made.frames(scene)[:20])
    with pytest.raises(ConfigError, match="34 frames; 50 are needed"):
        clips.frames(0, 0, 50)


def test_a_damaged_example_is_told_by_its_number(tfds_dir, monkeypatch):
    clips = open_clips(TfdsData("tfds:shapes_world", tfds_dir, frames=17), MODEL)

    class Damaged:
        def __getitem__(self, index):
            if index == 1:
                raise RuntimeError("DATA_LOSS: checksum")
            return {"caption": b"a red \xff circle"}

    monkeypatch.setattr(clips, "examples", Damaged())
    with pytest.raises(ConfigError, match=r"example 1 of tfds:shapes_world cannot be read: DATA_LOSS: checksum"):
        clips.frames(1)
    assert clips.captions(0)[0].startswith("a red")


def test_tfds_mistakes_are_named(tfds_dir):
    with pytest.raises(ConfigError, match="must be named tfds:NAME"):
        TfdsData("ucf101")
    with pytest.raises(ConfigError, match="prepare it once with"):
        open_clips(TfdsData("tfds:nothing", tfds_dir), MODEL)
    with pytest.raises(ConfigError, match="no feature 'label'; it has caption, video"):
        open_clips(TfdsData("tfds:shapes_world", tfds_dir, caption="label"), MODEL)
