"""Repositories of weights, by name: published ones, others with a revision, and downloads that fail."""

import json
import re
import shutil
import types

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects
from support.golden_data import GOLDEN
from support.published_layouts import stdit3_folder, t5_folder, vae_folder

from pavdm_jax import convert_weights
from pavdm_jax.checkpoints.model_folder import open_model
from pavdm_jax.conversion.hub import COMMITS, PUBLISHED
from pavdm_jax.models.model import PARTS


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The three repositories of Open-Sora, tiny."""
    root = tmp_path_factory.mktemp("published")
    stdit3_folder(root / "OpenSora-STDiT-v3"), vae_folder(root / "OpenSora-VAE-v1.2"), t5_folder(root / "t5-v1_1-xxl")
    return root


def test_the_published_repositories_are_downloaded_by_name(published, tmp_path, convert, monkeypatch):
    asked, commit = {}, "0123456789abcdef0123456789abcdef01234567"

    def snapshot_download(name, revision, **patterns):
        asked[name] = revision
        if name == "someone/a-vae":  # as in the cache of huggingface_hub
            return str(shutil.copytree(published / "OpenSora-VAE-v1.2", tmp_path / "snapshots" / commit))
        return str(published / name.split("/")[1])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(convert_weights, "import_torch", lambda name: None)  # the tiny T5 is in safetensors
    assert convert("--output", tmp_path / "model")[0] == 0
    assert asked == dict.fromkeys(PUBLISHED["open-sora-1.2"].values()) | COMMITS  # what is known of them
    assert re.fullmatch("[0-9a-f]{40}", asked["DeepFloyd/t5-v1_1-xxl"])
    record = json.loads((tmp_path / "model" / "parts.json").read_text())
    assert [record[part]["source"] for part in ("stdit3", "vae", "t5")] == list(PUBLISHED["open-sora-1.2"].values())
    vae = ["--vae", "someone/a-vae", "--output", tmp_path / "model"]
    code, _, shown = convert(*vae)  # it may be a mistyped path
    assert (code, shown) == (
        2,
        "error: --vae: there is no file or folder someone/a-vae; a repository on huggingface.co needs --revision, a "
        "commit or main\n",
    )
    assert "someone/a-vae" not in asked
    code, shown, _ = convert(*vae, "--revision", commit[:7])
    assert (code, asked["someone/a-vae"]) == (0, commit[:7])
    assert f"from someone/a-vae, commit {commit}" in shown
    assert json.loads((tmp_path / "model" / "parts.json").read_text())["vae"]["commit"] == commit


@pytest.mark.parametrize("options", [[], ["--vae", "a/b", "--stdit", "c/d"], ["--inspect", "demo"]])
def test_a_revision_is_of_one_repository(tmp_path, convert, options):
    code, _, shown = convert(*options, "--revision", "main", "--output", tmp_path / "model")
    assert (code, shown.count("\n")) == (2, 1)
    assert "--revision is a commit of one repository" in shown
    code, _, shown = convert("--vae", tmp_path, "--revision", "main", "--output", tmp_path / "model")
    assert code == 2 and "--revision is of a repository that is downloaded" in shown


def no_such_revision(name, revision, **patterns):
    response = types.SimpleNamespace(headers={}, request=None, status_code=404)
    raise huggingface_hub.errors.RevisionNotFoundError("404 Client Error.", response=response)


def unreachable(name, revision, **patterns):
    raise huggingface_hub.errors.LocalEntryNotFoundError(
        "Got: ConnectError: [Errno -2] Name or service not known\nAn ..."
    )


def lost(name, revision, **patterns):
    class ReadError(Exception):  # of the hub's own client, which is of no class of Python's or the hub's
        pass

    raise ReadError("the connection was reset")


def unknown(name, revision, **patterns):
    response = types.SimpleNamespace(headers={}, request=None, status_code=404)
    raise huggingface_hub.errors.RepositoryNotFoundError("404 Client Error.", response=response)


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (unreachable, "cannot be downloaded (ConnectError: [Errno -2] Name or service not known); check the network"),
        (lost, "someone/weights cannot be downloaded (the connection was reset); check the network"),
        (no_such_revision, "someone/weights has no revision main; give a commit, tag or branch of it"),
        (unknown, "there is no public repository someone/weights on huggingface.co"),
    ],
)
def test_failed_downloads_are_one_line(tmp_path, convert, monkeypatch, fake, message):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    code, _, shown = convert("--stdit", "someone/weights", "--revision", "main", "--output", tmp_path / "model")
    assert code == 2
    assert message in shown
    assert shown.count("\n") == 1


def test_a_published_model_is_downloaded_by_the_name_of_its_family(tmp_path, convert, monkeypatch):
    """All parts from one repository; size and window are those of the family, whatever the weights' sizes."""
    asked = []

    def snapshot_download(name, revision, **patterns):
        files = [
            "transformer/a.safetensors",
            "vae/b.safetensors",
            "text_encoder/c.safetensors",
            "tokenizer/spiece.model",
        ]
        asked.append((name, *filter_repo_objects([*files, "model_index.json"], **patterns)))
        return str(GOLDEN / "skyreels" / "checkpoints" / "SkyReels-V2-DF-tiny-Diffusers")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    family = "skyreels-v2-df-14b-720p"
    assert convert("--family", family, "--output", tmp_path / "model")[0] == 0
    (name,) = set(PUBLISHED[family].values())
    assert asked == [
        (name, "transformer/a.safetensors", "model_index.json"),
        (name, "vae/b.safetensors", "model_index.json"),
        (name, "text_encoder/c.safetensors", "tokenizer/spiece.model", "model_index.json"),
    ]
    files = open_model(tmp_path / "model", PARTS)
    assert (files.config.name, files.config.height, files.config.window.window_size) == (family, 720, 30)
    assert files.trained_with[0].latents == 31
