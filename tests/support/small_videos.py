"""Small videos and a manifest of them, good and bad: for tests of everything that reads videos."""

import av
import numpy as np

from pavdm_jax.video.writer import VideoWriter


def gradient(frames, height, width, seed=0):
    """Frames that differ from each other by their brightness, which survives compression."""
    start = np.random.default_rng(seed).integers(20, 60, (1, height // 8, width // 8, 3)).repeat(8, 1).repeat(8, 2)
    return (start + 2 * np.arange(frames)[:, None, None, None]).astype(np.uint8)


def write_video(path, frames, fps=24):
    with VideoWriter(path, fps, crf=1) as writer:
        writer.write(frames)
    return str(path)


def write_lossless(path, frames):
    """An MP4 that gives every pixel back, of any size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=24, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))


def write_csv(path, rows, header="path,caption"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def write_examples(folder):
    """A wide, a tall and a longer video of 40, 36 and 70 frames, a damaged one and one that is cut off.

    Returns the path of their manifest.
    """
    write_video(folder / "wide.mp4", gradient(40, 64, 96, 1))
    write_video(folder / "tall.mp4", gradient(36, 96, 64, 2))
    write_video(folder / "long.mp4", gradient(70, 64, 96, 3))
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    whole = (folder / "long.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    rows = [
        "wide.mp4,a wide clip",
        "tall.mp4,a tall clip",
        "long.mp4,a long clip",
        "noise.mp4,noise",
        "cut.mp4,cut off",
    ]
    return write_csv(folder / "clips.csv", rows)
