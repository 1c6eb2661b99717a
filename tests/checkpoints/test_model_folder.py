"""Model folders: what is saved comes back, and what is missing, damaged or of another architecture is refused with one
line."""

import dataclasses
import fcntl
import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiny_model import tiny_model

from pavdm_jax import storage
from pavdm_jax.checkpoints import lora
from pavdm_jax.checkpoints.config_json import to_json
from pavdm_jax.checkpoints.fingerprint import model_fingerprint, params_fingerprint
from pavdm_jax.checkpoints.load import load
from pavdm_jax.checkpoints.model_folder import EMBEDDED, ModelFolder, is_embedded, save_model
from pavdm_jax.conversion.export import export_transformer
from pavdm_jax.convert_weights import inspect, verify
from pavdm_jax.errors import ConfigError
from pavdm_jax.models.level_pattern import PRETRAINED, LevelPattern
from pavdm_jax.models.model import PARTS, flatten


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, tiny_model())
    return path


def test_a_saved_model_comes_back(saved):
    model = load(saved, PARTS)
    assert model.config == tiny_model().config
    assert model.tokenizer == tiny_model().tokenizer
    jax.tree.map(np.testing.assert_array_equal, model.params, tiny_model().params)


def test_a_model_folder_says_what_its_transformer_was_trained_with_and_is_the_same_model(saved, tmp_path):
    assert load(saved).trained_with == ()
    patterns = LevelPattern("progressive", 20, 5, 5), PRETRAINED
    save_model(tmp_path / "trained", load(saved, PARTS).replace(trained_with=patterns))
    model = load(tmp_path / "trained", PARTS)
    assert model.trained_with == patterns
    assert model_fingerprint(model) == model_fingerprint(load(saved, PARTS))
    save_model(tmp_path / "vae", model.replace(params={"vae": model.params["vae"]}))
    assert load(tmp_path / "vae", ["vae"]).trained_with == ()
    record = json.loads((tmp_path / "trained" / "parts.json").read_text())
    record["stdit3"]["trained_with"][0]["levels"] = 1
    (tmp_path / "trained" / "parts.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"trained cannot be read: .*levels: expected str, got 1"):
        load(tmp_path / "trained")


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    save_model(tmp_path / "half", tiny_model(), jnp.float16)
    params = load(tmp_path / "half", PARTS).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    rounded = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), tiny_model().params)
    jax.tree.map(np.testing.assert_array_equal, params, rounded)


def test_bfloat16_matrices_are_bfloat16_and_what_must_be_exact_is_not(saved):
    exact, rounded = tiny_model().params, load(saved, PARTS, dtype="bfloat16").params
    leaves = jax.tree_util.tree_leaves_with_path(rounded)
    names = {jax.tree_util.keystr(path): leaf.dtype.name for path, leaf in leaves}
    assert names["['t5']['layers']['query']['kernel']"] == names["['t5']['token_embedding']"] == "bfloat16"
    assert names["['vae']['spatial']['encoder']['conv_in']['kernel']"] == "bfloat16"
    for name in ("['stdit3']['modulation']['kernel']", "['stdit3']['null_caption']", "['t5']['relative_bias']"):
        assert names[name] == "float32"
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(x.dtype)), rounded, exact)
    with pytest.raises(ConfigError, match="use float32 or bfloat16"):
        load(saved, dtype="int8")


def test_a_model_without_text_encoder_needs_no_tokenizer(saved, tmp_path):
    two = {part: tiny_model().params[part] for part in ("stdit3", "vae")}
    save_model(tmp_path / "two", tiny_model().replace(params=two, tokenizer=None))
    model = load(tmp_path / "two", parts=["stdit3", "vae"])
    assert model.tokenizer is None
    jax.tree.map(np.testing.assert_array_equal, model.params, two)
    with pytest.raises(ConfigError, match=r"has no t5; it holds stdit3, vae; pavdm_jax\.convert_weights adds parts"):
        load(tmp_path / "two", PARTS)


def test_saving_again_replaces_and_leaves_nothing_beside(tmp_path):
    for _ in range(2):
        save_model(tmp_path / "model", tiny_model())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pavdm_jax.checkpoints.model_folder.to_json", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_model(tmp_path / "model", tiny_model())
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_training_run_is_read_through_its_model(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run" / "model")
    assert load(tmp_path / "run").config == tiny_model().config


def test_only_a_name_means_an_embedded_model(saved):
    assert is_embedded("demo")
    assert not any(is_embedded(path) for path in (str(saved), ".", "..", "", "README.md"))


def test_a_missing_folder_is_named():
    with pytest.raises(ConfigError, match="no checkpoint folder nowhere"):
        load("nowhere")


@pytest.mark.parametrize("path", [5, None, b"demo", ["demo"]])
def test_a_path_that_is_no_text_is_a_mistake(path):
    with pytest.raises(ConfigError, match="a path is text, not "):
        load(path)


@pytest.mark.parametrize("name", ["config.json", "spiece.model", "parts.json", "params"])
def test_an_incomplete_folder_is_refused(saved, tmp_path, name):
    copy = shutil.copytree(saved, tmp_path / "copy")
    part = copy / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        load(copy)


def test_half_written_parameters_are_refused(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    largest = max((copy / "params").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(ConfigError) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    config = tiny_model().config
    deeper = dataclasses.replace(config, stdit3=dataclasses.replace(config.stdit3, depth=3))
    (copy / "config.json").write_text(to_json(deeper))
    with pytest.raises(ConfigError, match="another architecture"):
        load(copy)


def test_parts_are_read_alone_and_an_absent_one_is_named(saved, tmp_path):
    assert set(load(saved, parts=["vae"]).params) == {"vae"}
    without = tiny_model().replace(params={"stdit3": tiny_model().params["stdit3"]})
    save_model(tmp_path / "transformer", without)
    with pytest.raises(ConfigError, match="has no vae; it holds stdit3"):
        load(tmp_path / "transformer", parts=["stdit3", "vae"])


def save_adapters(folder, factors, alpha=2.0, **about):
    base = params_fingerprint(tiny_model().transformer)
    lora.save(folder / lora.FILE, lora.Adapters(factors, alpha, base, **about))


def test_adapters_that_do_not_say_their_base_are_no_checkpoint(saved, tmp_path):
    save_adapters(tmp_path, adapters_of(lambda x: x))
    for path in (tmp_path, tmp_path / lora.FILE):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).endswith(f"--checkpoint BASE --lora {path}")
        load(saved, lora=path)
    shutil.copytree(saved, tmp_path / "model")  # as a run with `save_merged` has
    assert load(tmp_path).config == tiny_model().config


def test_adapters_are_given_in_place_of_a_model_and_bring_their_defaults(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "base")
    (run := tmp_path / "run").mkdir()
    config = dataclasses.replace(tiny_model().config, name="student", guidance_scale=1.0)
    save_adapters(run, adapters_of(lambda x: {n: v + 0.1 for n, v in x.items()}), base="../base", config=config)
    for path in (run, run / lora.FILE):
        model = load(path, parts=["transformer", "t5"])
        assert (model.config, Path(model.folder).name) == (config, "base")
        same = load(saved, parts=["transformer", "t5"], lora=path)
        jax.tree.map(np.testing.assert_array_equal, model.params, same.params)
        assert load(path, parts=()).config == load(saved, parts=(), lora=path).config == config
    before = flatten(load(saved, parts=["transformer", "t5"]).params)
    changed = {name for name, x in flatten(model.params).items() if not np.array_equal(x, before[name])}
    assert changed == {f"stdit3/blocks/{kind}/qkv/kernel" for kind in ("spatial", "temporal")}
    assert "LoRA adapters of ../base, rank 2" in inspect(str(run)) and "base: tiny" in inspect(str(run))
    assert "vae, adapters are as they were written" in verify(str(run))
    save_model(tmp_path / "merged", load(run, parts=PARTS))
    for name in ("run", "merged"):
        export_transformer(tmp_path / name, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "run.safetensors").read_bytes() == (tmp_path / "merged.safetensors").read_bytes()


def test_adapters_of_adapters_are_merged_in_their_order(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "base")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    factors = adapters_of(lambda x: {n: v + 0.1 for n, v in x.items()})
    save_adapters(tmp_path / "first", factors, base="../base")
    middle = load(tmp_path / "first")
    again = lora.Adapters(factors, 1.0, params_fingerprint(middle.transformer), "../first")
    lora.save(tmp_path / "second" / lora.FILE, again)
    both = lora.merge(middle.params, factors, 1.0, lora.exact_product)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "second").params, both)
    half = flatten(load(tmp_path / "second", dtype="bfloat16").params)
    kernel, norm = (f"stdit3/blocks/spatial/{name}" for name in ("qkv/kernel", "query_norm/scale"))
    assert (half[kernel].dtype, half[norm].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(half[kernel], flatten(both)[kernel].astype(jnp.bfloat16))
    save_adapters(tmp_path / "first", factors, base="../second")
    with pytest.raises(ConfigError, match="name themselves as the model that they change"):
        load(tmp_path / "second")


def test_adapters_of_other_networks_or_with_a_flipped_bit_are_refused(saved, tmp_path):
    config = tiny_model().config
    deeper = dataclasses.replace(config, t5=dataclasses.replace(config.t5, num_layers=7))
    save_adapters(tmp_path, adapters_of(lambda x: x), config=deeper)
    with pytest.raises(ConfigError, match="are of another architecture than this tiny"):
        load(saved, parts=(), lora=tmp_path)
    save_adapters(tmp_path, adapters_of(lambda x: x))
    content = (tmp_path / lora.FILE).read_bytes()
    for damaged in (content[:-40] + bytes([content[-40] ^ 1]) + content[-39:], content.replace(b'"2.0"', b'"9.0"')):
        (tmp_path / lora.FILE).write_bytes(damaged)
        with pytest.raises(ConfigError, match="are damaged: their checksum is"):
            load(saved, lora=tmp_path)


def test_adapters_whose_base_was_moved_ask_for_it(saved, tmp_path):
    save_adapters(tmp_path, adapters_of(lambda x: x), base="../moved")
    with pytest.raises(ConfigError, match=r"their base .*moved is not there; give the model .* --checkpoint BASE"):
        load(tmp_path)
    load(saved, lora=tmp_path)


def test_a_model_is_shown_in_one_short_line(saved):
    model = load(saved, ["vae"], dtype="bfloat16")
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params["vae"]))
    assert repr(model) == f"Model(tiny, vae: {count / 1e6:.4g} M parameters in bfloat16, from tiny)"
    assert repr(tiny_model()).startswith("Model(tiny, ") and len(repr(tiny_model())) < 200
    assert "no parameters" in repr(model.replace(params={"vae": {}}, folder=None))


def test_a_flipped_bit_is_noticed(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    files = [path for path in sorted((folder / "params").rglob("*")) if path.is_file() and path.stat().st_size > 50]
    assert len(files) > 10
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        with pytest.raises(ConfigError, match="1 files have changed since they were written"):
            load(folder, PARTS)
        path.write_bytes(whole)
    load(folder, PARTS)


@pytest.mark.parametrize(
    "text",
    [
        *("null", "[]", '"x"', "5", "[" * 5000, "", '{"stdit3": 1}', '{"stdit3": {"files": []}}'),
        '{"stdit3": {"files": {"a": "x"}}}',
        '{"t5": {"files": {}, "source_files": 5}}',
        '{"t5": {"files": {}, "dtype": "float32", "source_files": {"a": {"bytes": 5}}}}',
        '{"t5": {"files": {}, "source_files": {"a": {"bytes": 5, "sha256": "0"}}}}',
        '{"t5": {"files": {}, "commit": 5}}',
        '{"stdit3": {"mlp_ratio": 1e308}}',
    ],
)
@pytest.mark.parametrize("name", ["parts.json", "config.json"])
def test_json_of_another_kind_is_one_line(saved, tmp_path, name, text):
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(folder)
    with pytest.raises(ConfigError, match="is a damaged model folder"):
        ModelFolder(folder).__enter__()


def test_a_config_that_has_lost_its_fields_is_of_another_architecture(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds another architecture than the config"):
        load(folder)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("vae.spatial", "layers_per_block"),
        ("vae.temporal", "num_res_blocks"),
        ("t5", "relative_max_distance"),
        ("t5", "relative_buckets"),
    ],
)
def test_a_damaged_size_is_told_before_a_network_of_it_is_built(saved, tmp_path, part, field):
    folder = shutil.copytree(saved, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    inner = functools.reduce(dict.__getitem__, part.split("."), config)
    assert inner[field] > 0
    inner[field] = 10**9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"{field} must be at most"):
        load(folder)


def test_no_model_is_changed_through_a_link(saved, tmp_path):
    """A folder whose parts are links to another model's would give them away."""
    folder = tmp_path / "linked"
    folder.mkdir()
    for name in ("config.json", "parts.json", "spiece.model"):
        shutil.copy(saved / name, folder)
    (folder / "params").symlink_to(saved / "params")
    load(folder)  # reading through it is well
    with pytest.raises(ConfigError, match="has a symbolic link, params, through which another model would be changed"):
        ModelFolder(folder).__enter__()
    (folder / "params").unlink()
    (folder / "params").mkdir()
    (folder / "params" / "vae").symlink_to(saved / "params" / "vae")
    with pytest.raises(ConfigError, match="has a symbolic link, params/vae, through"):
        ModelFolder(folder).__enter__()


def adapters_of(change):
    made = lora.init_adapters(jax.random.key(0), flatten(tiny_model().params), ("qkv",), 2)
    return change({name: np.asarray(value) for name, value in made.items() if name.startswith("stdit3/")})


def first(adapters, ending="/a"):
    return next(name for name in adapters if name.endswith(ending))


@pytest.mark.parametrize(
    ("change", "alpha", "message"),
    [
        (lambda x: {}, 1.0, "the file is empty"),
        (lambda x: x, float("nan"), "alpha nan"),
        (lambda x: x, 0.0, r"alpha 0\.0; they are damaged, or do nothing"),
        (lambda x: x | {first(x): np.full_like(x[first(x)], np.nan)}, 1.0, "are not finite"),
        (lambda x: x | {first(x, "/b"): np.full_like(x[first(x, "/b")], np.inf)}, 1.0, "are not finite"),
        (lambda x: {n: v for n, v in x.items() if n != first(x, "/b")}, 1.0, "no two factors of one rank"),
        (lambda x: {n: v for n, v in x.items() if n != first(x)}, 1.0, "no two factors of one rank"),
        (lambda x: x | {first(x): x[first(x)][..., :1]}, 1.0, "no two factors of one rank"),
        (lambda x: {n: v[..., :0] if n.endswith("/a") else v[..., :0, :] for n, v in x.items()}, 1.0, "of one rank"),
        (lambda x: x | {first(x, "/b"): x[first(x, "/b")][:1]}, 1.0, "no two factors of one rank"),
        (lambda x: x | {first(x, "/b"): x[first(x, "/b")][0]}, 1.0, "no two factors of one rank"),
        (lambda x: {n: np.ones_like(v) for n, v in x.items()}, 1e300, "are too large: stdit3/.* is not finite"),
    ],
    ids=[
        *("none", "alpha", "alpha 0", "nan", "inf", "no b", "no a", "unequal ranks", "rank 0"),
        *("unequal layers", "one layer", "too large"),
    ],
)
def test_adapters_that_would_do_nothing_or_harm_are_refused(tmp_path, change, alpha, message):
    save_adapters(tmp_path, adapters_of(change), alpha)
    with pytest.raises(ConfigError, match=message):
        lora.apply(tiny_model(), tmp_path / "lora.safetensors")


def test_a_replaced_model_comes_back_when_its_writer_is_interrupted_between_two_renames(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "parts.json").write_text("of before")
    rename = Path.rename

    def interrupted(path, target):
        if target == folder and not path.name.endswith(".older"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), storage.new_folder(folder, "parts.json") as partial:
        (partial / "parts.json").write_text("of now")
    assert (folder / "parts.json").read_text() == "of before"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_folder_holds_is_read_when_no_other_process_adds_to_it(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved, tmp_path / "model")
    whole = (folder / "parts.json").read_text()
    (folder / "parts.json").write_text("{}")
    flock = fcntl.flock

    def locked(*arguments):
        flock(*arguments)
        (folder / "parts.json").write_text(whole)  # by another process, which is done

    monkeypatch.setattr(fcntl, "flock", locked)
    with ModelFolder(folder) as found:
        assert set(found.parts) == set(json.loads(whole))
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="exists and is not a model folder"), ModelFolder(folder):
        pass
    assert list(tmp_path.iterdir()) == [folder]


def test_the_adapters_of_an_embedded_model_are_found_by_its_name():
    assert lora.find("demo-distilled") == EMBEDDED / "demo-distilled" / lora.FILE
