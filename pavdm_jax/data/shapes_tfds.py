"""The shapes world as a TFDS data set, prepared and read without TensorFlow.

    ShapesWorld(data_dir="data", file_format="array_record").download_and_prepare()

prepares it, and `TfdsData("tfds:shapes_world", data_dir="data")` trains on it.
"""

import numpy as np
import tensorflow_datasets as tfds

from pavdm_jax.data.clips import ShapesClips
from pavdm_jax.data.config import ShapesData
from pavdm_jax.data.shapes_world import SIMPLE


class ShapesWorld(tfds.core.GeneratorBasedBuilder):
    """Videos of shapes that move and bounce, with captions; subclasses may differ in number, length and world.

    Examples: `{"video": uint8 [f, 64, 64, 3], "caption": text}`.
    """

    VERSION = tfds.core.Version("1.0.0")
    SIZE = 64
    CLIPS = 64
    FRAMES = 34
    WORLD = SIMPLE

    def _info(self) -> tfds.core.DatasetInfo:
        video = tfds.features.Tensor(
            shape=(None, self.SIZE, self.SIZE, 3), dtype=np.uint8, encoding=tfds.features.Encoding.ZLIB
        )
        features = tfds.features.FeaturesDict({"video": video, "caption": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, description=self.__class__.__doc__)

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(
                ShapesClips(ShapesData(self.FRAMES, self.CLIPS, world=self.WORLD), self.SIZE)
            )
        }

    def _generate_examples(self, clips: ShapesClips):
        for index in range(len(clips)):
            yield index, {"video": clips.frames(index), "caption": clips.captions(index)[0]}
