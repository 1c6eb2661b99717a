"""Networks as plug-ins: their outputs are kept beside the videos, and nothing takes their place."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.small_videos import gradient, write_video

from pavdm_jax.errors import ConfigError
from pavdm_jax.evaluation import features, vbench_networks
from pavdm_jax.evaluation.feature_files import features_path
from pavdm_jax.evaluation.features import video_features
from pavdm_jax.evaluation.measure import measure_video
from pavdm_jax.evaluation.networks import frechet_stride, load_networks, sixteen_frames
from pavdm_jax.evaluation.score import ScoreConfig, score
from pavdm_jax.evaluation.vbench_long import NETWORKS
from pavdm_jax.evaluation.videos import VideoFile


class MeanColour:
    """A network whose feature is a clip's mean colour; it counts how often it was asked."""

    name = "mean_colour"
    asked = 0

    def features(self, clip, fps):
        self.asked += 1
        assert fps == 24
        return clip.mean(axis=(0, 1, 2))


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, gradient(100, 32, 48))
    return path


def test_outputs_are_kept_beside_the_video_and_not_computed_again(video):
    network = MeanColour()
    found = video_features(video, [network])["mean_colour"]
    assert (found.shape, network.asked) == ((3, 3), 3)
    np.testing.assert_array_equal(video_features(video, [network])["mean_colour"], found)
    np.testing.assert_array_equal(video_features(video, [])["mean_colour"], found)
    assert network.asked == 3


def test_a_video_that_was_made_anew_has_no_features_yet(video):
    video_features(video, [MeanColour()])
    write_video(video, gradient(60, 32, 48))
    with pytest.raises(ConfigError, match=r"was made from another clip\.mp4"):
        video_features(video, [MeanColour()])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"musiq_spaq": np.ones((2, 48), np.float32)}, "is of 2 clips, but the video has 3"),
        ({"musiq_spaq": np.full((3, 48), np.nan)}, "no array of finite numbers"),
        ({"musiq_spaq": np.ones(3)}, "no array of finite numbers"),
        ({"musiq_spaq": np.array([[{}]], object)}, "cannot be read as features"),
        (b"nothing of the kind", "cannot be read as features"),
        (np.ones((3, 48)), "cannot be read as features"),
        ({"video_bytes": np.ones(3)}, "cannot be read as features"),
    ],
)
def test_files_that_make_no_sense_are_refused(video, content, message):
    path = features_path(video)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        with path.open("wb") as file:
            np.save(file, content)
    else:
        np.savez(path, **content)
    with pytest.raises(ConfigError, match=message):
        measure_video(VideoFile(video, "x"))


def test_numbers_that_are_not_finite_are_not_kept(video):
    class Broken(MeanColour):
        def features(self, clip, fps):
            return np.array([np.nan])

    with pytest.raises(ConfigError, match="mean_colour gives numbers that are not finite"):
        video_features(video, [Broken()])
    assert not features_path(video).exists()


def turning(degrees, frames):
    angles = np.radians(degrees * np.arange(frames))
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def test_the_six_dimensions_are_scored_from_a_file_alone(video, tmp_path):
    np.savez(
        features_path(video),
        dino_vitb16=np.tile(turning(0, 48), (3, 1, 1)),
        dinov2_vitb14=turning(60, 3)[:, None],
        clip_vit_b_32=np.tile(turning(0, 48), (3, 1, 1)),
        amt_s=np.full((3, 23), 51.0),
        raft_things=np.concatenate([np.full((2, 15), 9.0), np.zeros((1, 15))]),
        laion_aesthetic=np.full((3, 48), 5.0),
        musiq_spaq=np.full((3, 48), 60.0),
    )
    table = tmp_path / "subject_mapping_table.yaml"
    table.write_text("\n".join(f"{i / 100}: {i / 100}" for i in range(101)))
    output = tmp_path / "scores.json"
    score(ScoreConfig((str(video),), subject_mapping_table=str(table), output=str(output)))
    result = json.loads(output.read_text())
    (found,) = result["videos"]
    means = found["means"]
    assert means["motion_smoothness"] == pytest.approx(0.8)
    assert means["dynamic_degree"] == pytest.approx(2 / 3)
    assert means["aesthetic_quality"] == pytest.approx(0.5)
    assert means["imaging_quality"] == pytest.approx(0.6)
    # From clip to clip the subject turns by 60 degrees: cosines 1/2 and 1/2, then 1/2 and max(0, -1/2).
    assert found["consistencies"]["subject_consistency"]["clip_to_clip"] == pytest.approx((0.5 + 0.25) / 2)
    assert means["subject_consistency"] == pytest.approx((1 + 0.375) / 2)
    assert means["background_consistency_in_clip"] == pytest.approx(1)
    assert "background_consistency" not in means  # no DreamSim, no table: not the same thing under its name
    assert found["curves"]["dynamic_degree"] == [1, 1, 0]
    assert result["systems"][video.parent.name]["contrasts"]["dynamic_degree"]["mean"] == pytest.approx(-1)
    assert "VBench" in result["protocols"]["imaging_quality"]


def test_networks_of_frechet_distances_see_sixteen_frames_over_two_seconds():
    clip = np.arange(48)
    assert frechet_stride(48) == 3
    assert sixteen_frames(clip).tolist() == list(range(0, 48, 3))
    assert len(sixteen_frames(clip[:46])) == 16
    with pytest.raises(ConfigError, match="too short"):
        sixteen_frames(clip[:15])


def write_features_of(folder, count, mean, seed):
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number}.mp4"
        write_video(path, gradient(50, 32, 48))
        np.savez(features_path(path), mine=rng.normal(mean, 1, (2, 2)), dino_vitb16=rng.normal(size=(2, 48, 3)))


def test_systems_are_as_far_from_the_reference_as_their_features(tmp_path, capsys):
    write_features_of(tmp_path / "near", 12, 0.0, 0)
    write_features_of(tmp_path / "far", 12, 5.0, 1)
    write_features_of(tmp_path / "few", 1, 0.0, 2)
    write_features_of(tmp_path / "real", 12, 0.0, 3)
    systems = tuple(str(tmp_path / name) for name in ("near", "far", "few"))
    result = score(ScoreConfig(systems, reference=str(tmp_path / "real")))
    distances = result["frechet_distances"]
    assert set(distances["near"]) == {"mine"}  # DINO's features are for consistency
    assert distances["near"]["mine"]["distance"] < 1
    assert distances["far"]["mine"]["low"] < 50 < distances["far"]["mine"]["high"]
    assert "needs more than 2" in distances["few"]["mine"]["refused"]
    assert "files beside the videos" in result["protocols"]["frechet_distance_mine"]
    told = capsys.readouterr().out
    assert "far: Fréchet distance by mine" in told
    assert "few: no Fréchet distance by mine" in told


def test_a_damaged_reference_video_is_skipped_and_told(tmp_path, capsys):
    write_features_of(tmp_path / "ours", 6, 0.0, 0)
    write_features_of(tmp_path / "real", 6, 0.0, 3)
    strange = tmp_path / "real" / "x\x1b.mp4"
    write_video(strange, gradient(50, 32, 48))
    features_path(strange).write_bytes(b"no features")
    result = score(ScoreConfig((str(tmp_path / "ours"),), reference=str(tmp_path / "real")))
    assert result["frechet_distances"]["ours"]["mine"]["samples"] == [12, 12]
    assert list(result["skipped"]) == [str(strange)]
    told = capsys.readouterr()
    assert "1 of 13 videos were skipped" in told.out and "skipped: " in told.err and "\x1b" not in told.err
    for path in (tmp_path / "real").glob("*.npz"):
        path.write_bytes(b"no features")
    with pytest.raises(ConfigError, match=r"none of the 7 reference videos can be used; the first: .*cannot be read"):
        score(ScoreConfig((str(tmp_path / "ours"),), reference=str(tmp_path / "real")))


def test_features_that_cannot_be_kept_count_all_the_same(video, monkeypatch):
    def full(*_):
        raise ConfigError("the disk is full")

    monkeypatch.setattr(features, "write_features", full)

    class Network:
        name = "mine"

        def features(self, clip, fps):
            return np.ones(3, np.float32)

    with pytest.warns(UserWarning, match=r"the disk is full; the networks' features of .* are not kept"):
        found = video_features(video, [Network()])
    assert found["mine"].shape[1:] == (3,) and not features_path(video).exists()


def test_a_reference_that_no_network_has_seen_is_refused_before_the_work(video, tmp_path):
    (tmp_path / "real").mkdir()
    write_video(tmp_path / "real" / "a.mp4", gradient(10, 32, 48))
    with pytest.raises(ConfigError, match="name one with --networks"):
        score(ScoreConfig((str(video),), reference=str(tmp_path / "real")))


def test_there_is_a_loader_for_each_network_of_vbench():
    assert set(vbench_networks.LOADERS) == set(NETWORKS)


def test_networks_that_are_not_there_are_told_with_the_remedy(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "clip", None)
    with pytest.raises(ConfigError, match="there is no network resnet; there are dino_vitb16, "):
        score(ScoreConfig((str(video),), networks=("resnet",)))
    pytest.importorskip("torch", reason="networks in PyTorch need the extra: pip install 'pavdm_jax[torch]'")
    with pytest.raises(ConfigError, match=r"clip_vit_b_32 cannot be loaded .*pip install 'pavdm_jax\[vbench\]'"):
        load_networks(["clip_vit_b_32"], vbench_networks.LOADERS)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_i3d_sees_sixteen_frames_as_its_authors_prepare_them(video, tmp_path):
    torch = pytest.importorskip("torch", reason="networks in PyTorch need the extra: pip install 'pavdm_jax[torch]'")

    class Published(torch.nn.Module):
        """The interface of StyleGAN-V's file: the mean of each frame's red instead of 400 numbers."""

        def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False):
            assert rescale and resize and return_features
            return x[:, 0].mean(dim=[2, 3])

    torch.jit.script(Published()).save(str(tmp_path / "i3d_torchscript.pt"))
    measured = score(ScoreConfig((str(video),), i3d=str(tmp_path / "i3d_torchscript.pt")))
    assert len(measured["videos"]) == 1
    with np.load(features_path(video)) as kept:
        assert kept["i3d_kinetics400"].shape == (3, 16)
        steps = np.diff(kept["i3d_kinetics400"][0])
    np.testing.assert_allclose(steps, 6, atol=1)  # three frames further, each brighter by 2


def test_vbench_scores_of_single_clips_are_taken_from_its_own_code(monkeypatch):
    """AMT and RAFT run inside VBench's own classes; here stand-ins with their interface."""
    pytest.importorskip("torch", reason="networks in PyTorch need the extra: pip install 'pavdm_jax[torch]'")

    class MotionSmoothness:
        def __init__(self, config, ckpt, device):
            assert (config, ckpt) == ("AMT-S.yaml", "amt-s.pth")
            self.fp = SimpleNamespace()

        def motion_score(self, path):
            frames = self.fp.get_frames(path)
            assert (len(frames), frames[0].shape, frames[0].dtype) == (48, (32, 48, 3), np.uint8)
            return (255.0 - 51.0) / 255.0

    class DynamicDegree:
        def __init__(self, settings, device):
            assert settings.model == "raft-things.pth"

        def infer(self, path):
            frames = self.get_frames(path)
            assert (len(frames), tuple(frames[0].shape)) == (16, (1, 3, 32, 48))
            return self.check_move([7.0] * (len(frames) - 1))

    files = {
        "motion_smoothness": {"config": "AMT-S.yaml", "ckpt": "amt-s.pth"},
        "dynamic_degree": {"model": "raft-things.pth"},
    }
    for module, content in {
        "easydict": {"EasyDict": SimpleNamespace},
        "vbench": {},
        "vbench.utils": {"init_submodules": lambda names: {name: files[name] for name in names}},
        "vbench.motion_smoothness": {"MotionSmoothness": MotionSmoothness},
        "vbench.dynamic_degree": {"DynamicDegree": DynamicDegree},
    }.items():
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**content))
    amt, raft = load_networks(["amt_s", "raft_things"], vbench_networks.LOADERS)
    clip = gradient(48, 32, 48)
    np.testing.assert_allclose(amt.features(clip, 24), [51], rtol=1e-5)
    assert raft.features(clip, 24).tolist() == [7] * 15
