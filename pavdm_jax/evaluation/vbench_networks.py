"""The networks of VBench's six dimensions, each by the code and the weights of its authors.

`pip install 'pavdm_jax[vbench]'` brings the code of all but two; the weights are downloaded at first use. AMT-S and
RAFT come with VBench itself, which asks for an old NumPy: `pip install --no-deps vbench`, then `pip install omegaconf
easydict decord`. (The code of AMT is for non-commercial use.)
Code and heads that are downloaded are of one commit each, for which validation, by names of branches, is left out.

Frames are prepared as by VBench at commit 45e79ec: resized without antialiasing, bicubic overshoot not clipped. With
the published weights this has not been run yet.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pavdm_jax.evaluation.motion import flow_stride
from pavdm_jax.evaluation.networks import Loader, TorchNetwork

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINO_SOURCE = "facebookresearch/dino:7c446df5b9f45747937fb0d72314eb9f7b66930a"
DINOV2_SOURCE = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"
LAION_SOURCE = (
    "https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/6d122adad522ab246644d9dc1c6d7a3810ee255f/"
)
SIDE_PX = 224


def _all(clip: np.ndarray, fps: float) -> np.ndarray:
    return clip


def _first(clip: np.ndarray, fps: float) -> np.ndarray:
    return clip[:1]


def _sampled(clip: np.ndarray, fps: float) -> np.ndarray:
    return clip[:: flow_stride(fps)]


def _normalised(images: Any, statistics: tuple, size: int | tuple[int, int], mode: str, antialias: bool) -> Any:
    """Images 0..255, their shorter side resized to `size` and their colours normalised by mean and deviation."""
    transforms = import_module("torchvision.transforms")
    resized = transforms.functional.resize(images, size, transforms.InterpolationMode(mode), antialias=antialias)
    return transforms.functional.normalize(resized / 255, *statistics)


def _cropped(images: Any) -> Any:
    return import_module("torchvision.transforms").functional.center_crop(images, [SIDE_PX, SIDE_PX])


def _dino(device: str) -> TorchNetwork:
    torch = import_module("torch")
    model = torch.hub.load(DINO_SOURCE, "dino_vitb16", skip_validation=True).to(device).eval()

    def run(images):
        return model(_normalised(images, IMAGENET, SIDE_PX, "bilinear", antialias=False))

    return TorchNetwork("dino_vitb16", _all, run, device)


def _dinov2(device: str) -> TorchNetwork:
    torch = import_module("torch")
    model = torch.hub.load(DINOV2_SOURCE, "dinov2_vitb14", skip_validation=True).to(device).eval()

    def run(images):  # torchvision's resize smooths by default, as VBench leaves it here
        return model(_cropped(_normalised(images, IMAGENET, 256, "bicubic", antialias=True)))

    return TorchNetwork("dinov2_vitb14", _first, run, device)


def _clip(device: str) -> TorchNetwork:
    model = import_module("clip").load("ViT-B/32", device=device)[0]

    def run(images):
        return model.encode_image(_cropped(_normalised(images, CLIP, SIDE_PX, "bicubic", antialias=False)))

    return TorchNetwork("clip_vit_b_32", _all, run, device)


def _dreamsim(device: str) -> TorchNetwork:
    model = import_module("dreamsim").dreamsim(pretrained=True, device=device)[0]

    def run(images):
        unchanged = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return model.embed(_normalised(images, unchanged, (SIDE_PX, SIDE_PX), "bicubic", antialias=True))

    return TorchNetwork("dreamsim_ensemble", _first, run, device)


def _laion_aesthetic(device: str) -> TorchNetwork:
    torch = import_module("torch")
    model = import_module("clip").load("ViT-L/14", device=device)[0]
    url = f"{LAION_SOURCE}sa_0_4_vit_l_14_linear.pth"
    head = torch.nn.Linear(768, 1)
    head.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True))
    head = head.to(device).eval()

    def run(images):
        features = model.encode_image(_cropped(_normalised(images, CLIP, SIDE_PX, "bicubic", antialias=False))).float()
        return head(torch.nn.functional.normalize(features, dim=-1))[:, 0]

    return TorchNetwork("laion_aesthetic", _all, run, device)


def _musiq(device: str) -> TorchNetwork:
    torch = import_module("torch")
    images_to = import_module("torchvision.transforms").functional
    url = "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not weights.is_file():
        weights.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(weights), hash_prefix="358bb6af")
    model = import_module("pyiqa.archs.musiq_arch").MUSIQ(pretrained_model_path=str(weights)).to(device)
    model.training = False  # of this module alone, as in VBench

    def run(images):
        scale = 512 / max(images.shape[-2:])
        if scale < 1:
            size = [int(scale * side) for side in images.shape[-2:]]
            images = images_to.resize(images, size, antialias=False)
        return torch.stack([model(image[None] / 255).reshape(()) for image in images])

    return TorchNetwork("musiq_spaq", _all, run, device)


def _amt(device: str) -> TorchNetwork:
    torch = import_module("torch")
    paths = import_module("vbench.utils").init_submodules(["motion_smoothness"])["motion_smoothness"]
    metric = import_module("vbench.motion_smoothness").MotionSmoothness(paths["config"], paths["ckpt"], device)

    def run(images):  # VBench's own score of a clip, and back to the error that it is made from
        frames = images.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
        metric.fp.get_frames = lambda _: list(frames)
        return torch.tensor([255 * (1 - float(metric.motion_score("clip.mp4")))])

    return TorchNetwork("amt_s", _all, run, device)


def _raft(device: str) -> TorchNetwork:
    torch = import_module("torch")
    path = import_module("vbench.utils").init_submodules(["dynamic_degree"])["dynamic_degree"]["model"]
    settings = import_module("easydict").EasyDict(model=path, small=False, mixed_precision=False, alternate_corr=False)
    metric = import_module("vbench.dynamic_degree").DynamicDegree(settings, device)
    metric.check_move = lambda scores: scores  # the largest flow between each two frames; judged by `moves`

    def run(images):
        metric.get_frames = lambda _: list(images[:, None])
        return torch.tensor(metric.infer("clip.mp4"))

    return TorchNetwork("raft_things", _sampled, run, device)


_HUB = "pip install 'pavdm_jax[vbench]'"
_VBENCH = "pip install --no-deps vbench, then omegaconf, easydict and decord,"

LOADERS = {
    "dino_vitb16": Loader(_dino, _HUB),
    "clip_vit_b_32": Loader(_clip, _HUB),
    "dinov2_vitb14": Loader(_dinov2, _HUB),
    "dreamsim_ensemble": Loader(_dreamsim, _HUB),
    "amt_s": Loader(_amt, _VBENCH),
    "raft_things": Loader(_raft, _VBENCH),
    "laion_aesthetic": Loader(_laion_aesthetic, _HUB),
    "musiq_spaq": Loader(_musiq, _HUB),
}
"""By the names of `vbench_long.NETWORKS`."""
