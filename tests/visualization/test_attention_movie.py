"""The frames of the file, read back."""

from __future__ import annotations

from tsl_latentgnn.visualization import save_attention_movie

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.animation import FFMpegWriter
from PIL import Image, ImageSequence

# The hot entry wanders along the diagonal.
HOT = torch.stack([torch.diag(torch.eye(5)[step]) for step in range(5)])


def read(path) -> tuple[list[np.ndarray], list[int]]:
    """Frames [H, W, 3] and their durations in milliseconds."""
    with Image.open(path) as movie:
        pairs = [
            (np.asarray(frame.convert("RGB"), dtype=np.int16), frame.info["duration"])
            for frame in ImageSequence.Iterator(movie)
        ]
    frames, durations = zip(*pairs, strict=True)
    return list(frames), list(durations)


def matrix_pixels(frame: np.ndarray) -> np.ndarray:
    """The part of the frame under the title and left of the color bar."""
    height, width, _ = frame.shape
    return frame[int(0.12 * height) : int(0.88 * height), int(0.15 * width) : int(0.8 * width)]


def darkest(frame: np.ndarray) -> tuple[float, float]:
    """Center (x, y) of the dark blue cell, left of the color bar."""
    red, blue = frame[:, : int(0.85 * frame.shape[1]), 0], frame[:, : int(0.85 * frame.shape[1]), 2]
    y, x = np.nonzero((red < 60) & (blue - red > 60))
    return float(x.mean()), float(y.mean())


def test_one_frame_per_step_at_the_asked_speed(tmp_path):
    path = save_attention_movie(HOT, tmp_path / "movie.gif", fps=5, dpi=50)
    assert path == tmp_path / "movie.gif"
    frames, durations = read(path)
    assert len(frames) == 5
    assert durations == [200] * 5
    assert frames[0].shape == (250, 290, 3)


def test_frames_follow_the_data(tmp_path):
    frames, _ = read(save_attention_movie(HOT, tmp_path / "movie.gif", dpi=50))
    centers = np.array([darkest(frame) for frame in frames])
    # Down the diagonal in steps of one size, within a pixel.
    assert (np.diff(centers, axis=0) > 10).all()
    assert np.ptp(np.diff(centers, axis=0)) <= 2


def test_equal_steps_stay_separate_frames_and_differ_only_in_the_counter(tmp_path):
    frames, _ = read(save_attention_movie(HOT[[0, 0, 1]], tmp_path / "movie.gif", dpi=50))
    assert len(frames) == 3
    # A palette per frame may shift a color a little.
    same, other = (np.abs(matrix_pixels(frames[0]) - matrix_pixels(f)).max() for f in frames[1:])
    assert same <= 16
    assert other > 100
    assert np.abs(frames[0][:30] - frames[1][:30]).max() > 100


def test_color_scale_is_that_of_all_frames(tmp_path):
    # On a scale of its own the first frame would be as dark as the second.
    frames, _ = read(
        save_attention_movie(
            HOT[:2] * torch.tensor([0.2, 1.0]).view(2, 1, 1), tmp_path / "movie.gif", dpi=50
        )
    )
    brightness = [matrix_pixels(frame)[..., 0].min() for frame in frames]
    assert brightness[0] > 150 > 60 > brightness[1]


def test_color_scale_of_either_sign_is_that_of_all_frames(tmp_path):
    # Zeros are white, in the middle of the scale; what is above is red, what is below is blue.
    path = save_attention_movie(
        HOT[:2] * torch.tensor([1.0, -1.0]).view(2, 1, 1), tmp_path / "movie.gif", dpi=50
    )
    frames, _ = read(path)
    pixels = [matrix_pixels(frame).reshape(-1, matrix_pixels(frame).shape[-1]) for frame in frames]
    assert all(np.median(each, axis=0)[:3].min() > 230 for each in pixels)
    redder = [(each[:, 0].astype(int) - each[:, 2]) for each in pixels]
    assert redder[0].max() > 60
    assert redder[0].min() > -20
    assert redder[1].min() < -60
    assert redder[1].max() < 20


def test_given_color_scale(tmp_path):
    path = save_attention_movie(HOT[:1], tmp_path / "movie.gif", vmin=0.0, vmax=10.0, dpi=50)
    (frame,), _ = read(path)
    # A tenth of the scale: almost white, but for the black frame of the axes.
    assert np.median(matrix_pixels(frame)) > 200
    assert (matrix_pixels(frame)[..., 0] < 60).mean() < 0.02


def test_sample_and_mean_of_a_batch(tmp_path, dense_graph):
    batch = torch.stack([HOT[:2], HOT[2:4]])
    last = read(save_attention_movie(dense_graph(batch), tmp_path / "b.gif", batch=1, dpi=50))[0]
    expected = read(save_attention_movie(HOT[2:4].numpy(), tmp_path / "a.gif", dpi=50))[0]
    np.testing.assert_array_equal(last, expected)
    mean = read(save_attention_movie(batch, tmp_path / "m.gif", batch=None, dpi=50))[0]
    direct = read(save_attention_movie(batch.mean(0), tmp_path / "d.gif", dpi=50))[0]
    np.testing.assert_array_equal(mean, direct)


def test_suffix_decides(tmp_path):
    assert save_attention_movie(HOT[:1], str(tmp_path / "MOVIE.GIF"), dpi=30).exists()
    for name in ("movie.avi", "movie"):
        with pytest.raises(ValueError, match=r"'path' must end in \.gif or \.mp4"):
            save_attention_movie(HOT, tmp_path / name)
    with pytest.raises(TypeError, match="'path' must be a str or Path"):
        save_attention_movie(HOT, 3)


def test_mp4_without_ffmpeg_says_what_to_do(tmp_path):
    with (
        matplotlib.rc_context({"animation.ffmpeg_path": str(tmp_path / "no-such-program")}),
        pytest.raises(RuntimeError, match=r"needs the program ffmpeg.*or write a \.gif"),
    ):
        save_attention_movie(HOT, tmp_path / "movie.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="ffmpeg is not installed")
def test_mp4_with_ffmpeg(tmp_path):
    # An odd number of pixels, which the pixel format cannot take as it is.
    path = save_attention_movie(HOT, tmp_path / "movie.mp4", dpi=51)
    assert path.read_bytes()[4:8] == b"ftyp"


def test_a_missing_folder_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_attention_movie(HOT, tmp_path / "nowhere" / "movie.gif")


def test_rejects_what_has_no_time(tmp_path):
    path = tmp_path / "movie.gif"
    with pytest.raises(ValueError, match=r"'A' must be \[T, N, N\].*Tensor of shape \[5, 5\]"):
        save_attention_movie(HOT[0], path)
    with pytest.raises(ValueError, match="'A' must be square"):
        save_attention_movie(HOT[:, :3], path)
    with pytest.raises(ValueError, match="'A' must not be empty"):
        save_attention_movie(HOT[:0], path)
    with pytest.raises(ValueError, match="'A' must be finite"):
        save_attention_movie(HOT / 0.0, path)
    with pytest.raises(TypeError, match="'A' must be a real-valued"):
        save_attention_movie(HOT.tolist(), path)
    assert not path.exists()


def test_one_sample_of_a_learned_graph_is_a_series(tmp_path, dense_graph):
    of_graph = save_attention_movie(dense_graph(HOT), tmp_path / "graph.gif")
    of_array = save_attention_movie(HOT, tmp_path / "array.gif")
    assert of_graph.read_bytes() == of_array.read_bytes()


def test_rejects_bad_options(tmp_path):
    path = tmp_path / "movie.gif"
    with pytest.raises(ValueError, match="'batch'"):
        save_attention_movie(HOT, path, batch=1)
    with pytest.raises(ValueError, match="'fps'"):
        save_attention_movie(HOT, path, fps=0)
    with pytest.raises(ValueError, match="'dpi'"):
        save_attention_movie(HOT, path, dpi=0)
    with pytest.raises(ValueError, match="'labels' must name all 5 nodes"):
        save_attention_movie(HOT, path, labels=["a"])
