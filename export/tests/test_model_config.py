import dataclasses
import json

import pytest

from refersam.model import DecoderConfig, ReferSAMConfig, TextConfig, preset


@pytest.mark.parametrize("size", ["tiny", "mini", "vit_b", "vit_l", "vit_h"])
@pytest.mark.parametrize("text", ["bert", "clip"])
def test_survives_json(size, text):
    config = preset(size, text)
    assert ReferSAMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_missing_keys_are_named():
    values = preset("tiny", "bert").to_dict()
    values["vit"]["colour"] = 3
    del values["vit"]["depth"]
    with pytest.raises(ValueError, match=r"config\.vit: unknown keys \['colour'\], missing keys \['depth'\]"):
        ReferSAMConfig.from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: dataclasses.replace(c.vit, heads=5), "vit.width"),
        (lambda c: dataclasses.replace(c.vit, stages=((0, 1), (3, 3))), "stages"),
        (lambda c: dataclasses.replace(c.vit, global_blocks=(4,)), "global_blocks"),
        (lambda c: dataclasses.replace(c.vit, native_side=100), "native_side"),
        (lambda c: TextConfig("gpt", 1, 1, 8, 8, 10, 10), "'bert', 'clip'"),
        (lambda c: DecoderConfig(width=60, heads=4, mlp_width=8, iou_hidden=8), "decoder.width"),
        (
            lambda c: dataclasses.replace(c, adapter=dataclasses.replace(c.adapter, deform_heads=5)),
            "deform_heads",
        ),
        (lambda c: preset("huge", "bert"), "vit_h"),
        (lambda c: preset("tiny", "gpt"), "clip"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change(preset("tiny", "bert"))
