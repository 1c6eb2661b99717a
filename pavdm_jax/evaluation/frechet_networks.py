"""Networks whose features make the Fréchet distances that are known as FVD: the code and weights of their authors.

With the published weights they have not been run yet.
"""

from importlib import import_module

import numpy as np

from pavdm_jax.evaluation.networks import Loader, TorchNetwork, sixteen_frames


def _sixteen(clip: np.ndarray, fps: float) -> np.ndarray:
    """Sixteen frames of a clip, of which the square in the middle: the networks would squeeze it to one."""
    side = min(clip.shape[1:3])
    top, left = ((length - side) // 2 for length in clip.shape[1:3])
    return sixteen_frames(clip)[:, top : top + side, left : left + side]


def _videomae(device: str) -> TorchNetwork:
    """VideoMAE-v2 ViT-g/14 finetuned on SSv2, of content-debiased FVD (`pip install cd-fvd`), 1408 numbers."""
    published = import_module("cdfvd.third_party.VideoMAEv2.utils")
    model = published.load_videomae_model(device, None).eval()

    def run(images):
        video = images.permute(0, 2, 3, 1)[None].cpu().numpy().astype(np.uint8)
        return model.forward_features(published.preprocess_videomae(video).to(device))[0]

    return TorchNetwork("videomae_vit_g_ssv2", _sixteen, run, device)


def i3d_loader(path: str) -> Loader:
    """StyleGAN-V's TorchScript of I3D, trained on Kinetics-400, in the file `i3d_torchscript.pt`; 400 numbers."""

    def load(device: str) -> TorchNetwork:
        model = import_module("torch").jit.load(path, map_location=device).eval()

        def run(images):
            return model(images.transpose(0, 1)[None], rescale=True, resize=True, return_features=True)[0]

        return TorchNetwork("i3d_kinetics400", _sixteen, run, device)

    return Loader(load, "give StyleGAN-V's own i3d_torchscript.pt")


LOADERS = {"videomae_vit_g_ssv2": Loader(_videomae, "pip install 'pavdm_jax[fvd]'")}

PROTOCOLS = {
    "videomae_vit_g_ssv2": "content-debiased FVD: VideoMAE-v2 ViT-g/14, SSv2-finetuned, cd-fvd; middle squares",
    "i3d_kinetics400": "FVD of StyleGAN-V: I3D, Kinetics-400 logits; middle squares",
}
