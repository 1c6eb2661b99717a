"""Which model parts become: by the transformer that is there and the family that is named, in whatever order."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.published_layouts import vae_folder

from pavdm_jax.config import OPEN_SORA_1_2, demo
from pavdm_jax.conversion.architecture import model_config
from pavdm_jax.conversion.convert import _base
from pavdm_jax.conversion.export import unsaid_sizes
from pavdm_jax.errors import ConfigError
from pavdm_jax.families import PUBLISHED
from pavdm_jax.wan_config import WanVAEConfig, tiny_wan


def test_an_export_tells_what_no_tensor_says():
    assert unsaid_sizes(demo()) == {"input_sq_size": 64}
    assert unsaid_sizes(OPEN_SORA_1_2) == unsaid_sizes(PUBLISHED["skyreels-v2-df-14b"]) == {}
    assert unsaid_sizes(tiny_wan()) == {"num_heads": 2}


def test_the_order_of_the_parts_does_not_decide_what_a_model_is():
    vae_first = model_config(None, set(), {"vae": WanVAEConfig()})
    for known in (PUBLISHED["skyreels-v2-df-1.3b"], PUBLISHED["skyreels-v2-df-14b"]):
        new = {"wan": known.wan}
        assert model_config(vae_first, {"vae"}, new) == known == model_config(None, set(), new)
    small, large = PUBLISHED["skyreels-v2-df-1.3b"], PUBLISHED["skyreels-v2-df-14b-720p"]
    assert model_config(small, {"vae", "t5"}, {"wan": large.wan}).name == "skyreels-v2-df-14b"  # it is also the 720p's
    assert model_config(large, {"vae", "t5"}, {"wan": large.wan}) == large
    sized = replace(small, height=480)
    assert model_config(sized, {"wan"}, {"vae": WanVAEConfig()}) == sized


def test_a_named_family_is_that_of_the_folder_or_refused():
    def there(config, *parts):
        return SimpleNamespace(config=config, parts=parts, path=Path("model"))

    large = PUBLISHED["skyreels-v2-df-14b-720p"]
    vae_first = model_config(None, set(), {"vae": replace(WanVAEConfig(), num_res_blocks=1)})
    assert _base(there(None), large) == large
    assert _base(there(vae_first, "vae"), None) == vae_first
    assert _base(there(vae_first, "vae"), large) == replace(large, vae=vae_first.vae)
    for config, parts in ((demo(), ("vae",)), (PUBLISHED["skyreels-v2-df-1.3b"], ("wan",))):
        with pytest.raises(ConfigError, match="and not of skyreels-v2-df-14b-720p; give another --output"):
            _base(there(config, *parts), large)


@pytest.mark.parametrize("output", ["demo", "./demo-distilled", "/"])
def test_outputs_that_would_be_taken_for_another_model_are_refused(tmp_path, convert, output):
    code, _, line = convert("--vae", vae_folder(tmp_path / "vae"), "--output", output)
    assert code == 2
    assert "is the name of a model in the package" in line or "has no name of its own" in line
