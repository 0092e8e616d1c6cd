"""Names of models, judged by the lists of models that the gateways are known to have."""

from copy import copy

import pytest

from receiver.gateways.api_in_one import ApiInOne
from receiver.gateways.apiframe import Apiframe
from receiver.gateways.model_names import ANYWAY, as_listed, mistaken, warnings
from tests.support.gateway_samples import adapter

GATEWAYS = {one.name: one for one in (adapter(Apiframe, "afk_key"), adapter(ApiInOne, "aio_key"))}


@pytest.mark.parametrize(
    ("gateway", "model", "instead"),
    [
        ("apiframe", "imagen4-fast", "set the gateway to api-in-one, or the model to imagen-4-fast"),
        ("apiframe", "Imagen4-Fast", "set the gateway to api-in-one, or the model to imagen-4-fast"),
        ("apiframe", "grok-imagine", "set the gateway to api-in-one, or the model to grok-imagine-image"),
        ("api-in-one", "imagen-4", "set the gateway to apiframe, or the model to imagen4"),
        ("api-in-one", "midjourney", "set the gateway to apiframe. Ignore"),
    ],
)
def test_the_model_of_another_gateway_is_mistaken(gateway: str, model: str, instead: str) -> None:
    why = mistaken(GATEWAYS, gateway, model) or ""
    assert instead in why
    assert why.endswith(ANYWAY)


@pytest.mark.parametrize(
    ("gateway", "model", "meant"),
    [
        ("apiframe", "imagen-4-fsat", "imagen-4-fast"),
        ("apiframe", "imagen-4-fas", "imagen-4-fast"),
        ("apiframe", "imagen-4-fastt", "imagen-4-fast"),
        ("apiframe", "imagem-4-fast", "imagen-4-fast"),
        ("apiframe", "IMAGEN_4_FAST", "imagen-4-fast"),
        ("apiframe", " imagen-4-fast", "imagen-4-fast"),
        ("apiframe", "imagen 4 ultra", "imagen-4-ultra"),
        ("apiframe", "midjorney", "midjourney"),
        ("apiframe", "nanobanana", "nano-banana"),
        ("apiframe", "qwen-imgae-2", "qwen-image-2"),
        ("api-in-one", "imagen4-ulta", "imagen4-ultra"),
        ("api-in-one", "imagen4fast", "imagen4-fast"),
    ],
)
def test_a_mistyped_model_is_mistaken(gateway: str, model: str, meant: str) -> None:
    assert f"did you mean {meant}?" in (mistaken(GATEWAYS, gateway, model) or "")


@pytest.mark.parametrize(
    ("gateway", "model"),
    [
        ("apiframe", "imagen-5"),
        ("apiframe", "imagen-4.5-fast"),
        ("apiframe", "flux-3-pro"),
        ("apiframe", "ideogram-v4a"),
        ("apiframe", "seedream-5.5-pro"),
        ("apiframe", "midjourney-v8"),
        ("apiframe", "imagen-4-lite"),
        ("apiframe", "google/imagen-4-fast"),
        ("apiframe", "我的模型"),
        ("apiframe", "x"),
        ("apiframe", "?"),
        ("api-in-one", "imagen5"),
        ("api-in-one", "kling-image-o2"),
    ],
)
def test_a_new_model_is_accepted_with_a_warning(gateway: str, model: str) -> None:
    assert mistaken(GATEWAYS, gateway, model) is None
    (warning,) = warnings(GATEWAYS, gateway, model)
    assert warning.startswith(f"{model} is no known model of {gateway}.")


@pytest.mark.parametrize("name", GATEWAYS)
def test_no_known_model_is_mistaken_for_another(name: str) -> None:
    known = GATEWAYS[name]
    for model in known.models:
        assert (mistaken(GATEWAYS, name, model), warnings(GATEWAYS, name, model)) == (None, ())
        assert as_listed(known, model.upper()) == model
        before = copy(known)
        before.models = tuple(one for one in known.models if one != model)
        assert mistaken({name: before}, name, model) is None, "the gateway had added it in vain"
