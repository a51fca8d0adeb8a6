"""Backbones: strides by dilation, weights from files, frozen parts that stay frozen."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from facts import facts
from sniper.errors import CheckpointError, RecipeError
from sniper.fetch.shipped import shipped
from sniper.nn.backbones import build_backbone

PIXELS = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
NAMES = ["torchvision/mobilenet_v2", "torchvision/resnet18", "timm/resnet18", "mobilenetv2_100"]


OTHERS = [("torchvision/mobilenet_v3_small", 8), ("torchvision/efficientnet_b0", 16), ("torchvision/convnext_tiny", 16)]


@pytest.mark.parametrize(("name", "stride"), [*((name, stride) for name in NAMES for stride in (8, 16, 32)), *OTHERS])
def test_map_has_the_stride(name, stride):
    backbone = build_backbone(name, stride=stride).eval()
    with torch.no_grad():
        features = backbone(PIXELS)
    assert features.shape == (2, backbone.channels, 96 // stride, 160 // stride)
    assert len(backbone.map_channels) == (1 if stride == 32 else 2)


def test_mobilenet_maps():
    assert build_backbone("torchvision/mobilenet_v2").map_channels == (96, 320)
    assert build_backbone("torchvision/mobilenet_v2", dilation="stop").map_channels == (96,)
    assert build_backbone("torchvision/mobilenet_v2", stride=8, dilation="upsample", feature_levels=3).map_channels == (
        32,
        96,
        320,
    )


@pytest.mark.parametrize("dilation", ["dilate", "upsample"])
@pytest.mark.parametrize("size", [(1, 1), (33, 17), (48, 80)])
def test_any_canvas_size(dilation, size):
    backbone = build_backbone("torchvision/mobilenet_v2", dilation=dilation, channels=8).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, *size)).shape == (1, 8, -(-size[0] // 16), -(-size[1] // 16))


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v2", "torchvision/resnet18"])
def test_dilated_map_holds_the_strided_one(name):
    """Dilation only adds the cells in between: every second cell is the classifier's own, away from the border."""
    torch.manual_seed(0)
    strided = build_backbone(name, stride=32, feature_levels=1).eval()
    dilated = build_backbone(name, stride=16, feature_levels=1).eval()
    dilated.load_state_dict(strided.state_dict())
    with torch.no_grad():
        pixels = torch.randn(1, 3, 512, 512)
        whole, fine = strided(pixels), dilated(pixels)[:, :, ::2, ::2]
    torch.testing.assert_close(fine, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parts_stay_still(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, frozen_stages=2).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(PIXELS).sum().backward()
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], 0.1)
    optimizer.step()
    moved = [key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])]
    still = [key for key in before if key not in moved]
    early = "features.3" if "torchvision/m" in name else "blocks.1." if name in NAMES[3] else "layer1."
    assert any(early.removeprefix("features") in key for key in still)
    assert not any(key.startswith(("body.conv1.", "body.conv_stem.", "body.0.")) for key in moved)
    assert any("running_mean" in key for key in moved)
    frozen = [key for key, p in backbone.named_parameters() if not p.requires_grad]
    assert 0 < len(frozen) < len(list(backbone.parameters()))


def test_frozen_norm_survives_train():
    backbone = build_backbone("torchvision/resnet18", norm="frozen").train()
    before = backbone.state_dict()["body.layer4.1.bn2.running_mean"].clone()
    backbone(PIXELS).sum().backward()
    assert torch.equal(backbone.state_dict()["body.layer4.1.bn2.running_mean"], before)
    norms = [p for key, p in backbone.named_parameters() if ".bn" in key]
    assert norms
    assert all(p.grad is None for p in norms)
    assert backbone.body.layer4[1].conv2.weight.grad is not None


@pytest.mark.parametrize("kind", ["pth", "safetensors", "half", "only what is needed"])
def test_weights_from_a_file(tmp_path, kind):
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2()
    state = model.state_dict()
    path = tmp_path / ("weights.pth" if kind == "pth" else "weights.safetensors")
    if kind == "half":
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    if kind == "only what is needed":
        state = {key: value for key, value in state.items() if not key.startswith(("classifier", "features.18"))}
    torch.save(state, path) if kind == "pth" else save_file(state, path)
    backbone = build_backbone("torchvision/mobilenet_v2", weights=str(path), dilation="stop").eval()
    with torch.no_grad():
        expected = model.eval().features[:14](PIXELS)
        torch.testing.assert_close(backbone(PIXELS), expected, atol=0.02 if kind == "half" else 1e-5, rtol=1e-4)
    assert all(p.dtype == torch.float32 for p in backbone.parameters())


def test_timm_weights_from_a_file(tmp_path):
    """timm renames layers when it takes a network apart; the file has the names of the whole one."""
    import timm

    model = timm.create_model("test_convnext")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    body = build_backbone("timm/test_convnext", weights=str(tmp_path / "weights.safetensors"), dilation="stop").body
    assert torch.equal(body.state_dict()["stem_0.weight"], model.state_dict()["stem.0.weight"])


def test_imagenet_weights_of_torchvision(shared_data):
    path = shared_data.parent / "weights" / "mobilenet_v2-b0353104.pth"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    backbone = build_backbone("torchvision/mobilenet_v2", weights=str(path))
    assert torch.equal(backbone.state_dict()["body.17.conv.2.weight"], torch.load(path)["features.17.conv.2.weight"])


def test_wrong_weights_are_named(tmp_path):
    good = torchvision.models.resnet18().state_dict()
    path = tmp_path / "weights.pth"

    def refused(content, name="torchvision/resnet18"):
        torch.save(content, path)
        with pytest.raises(CheckpointError) as caught:
            build_backbone(name, weights=str(path))
        message = str(caught.value)
        assert "weights.pth" in message
        assert "\n" not in message
        return message

    assert "conv1.weight" in refused({key: value for key, value in good.items() if key != "conv1.weight"})
    assert "(64, 3, 7, 5)" in refused({**good, "conv1.weight": torch.zeros(64, 3, 7, 5)})
    assert "features.0.0.weight" in refused(good, "torchvision/mobilenet_v2")
    broken = {**good, "layer1.0.bn1.running_var": torch.full((64,), torch.nan)}
    assert "layer1.0.bn1.running_var has a value that is not a finite number" in refused(broken)
    refused([1, 2])
    refused({"epoch": 3})
    refused({"model": torchvision.models.resnet18})  # code, not tensors
    path.write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="not a readable weight file"):
        build_backbone("torchvision/resnet18", weights=str(path))
    with pytest.raises(
        CheckpointError, match=facts("No such file", "model.weights", str(shipped("torchvision/mobilenet_v2")))
    ):
        build_backbone("torchvision/resnet18", weights=str(tmp_path / "absent.safetensors"))


def test_imagenet_weights_without_a_network(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("SNIPER_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    path = shipped("torchvision/mobilenet_v2")
    with pytest.raises(CheckpointError, match=facts("could not be downloaded", "model.weights", str(path))):
        build_backbone("torchvision/resnet18", weights="imagenet")
    offline = build_backbone("torchvision/mobilenet_v2", weights="imagenet")
    assert f"the shipped ones, an earlier version, are taken: {path}" in caplog.text
    given = build_backbone("torchvision/mobilenet_v2", weights=str(path))
    body, expected = offline.body.state_dict(), given.body.state_dict()
    assert all(torch.equal(body[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("torchvision/mobilenet_v22", "did you mean 'mobilenet_v2'"),
        ("timm/resnt50", "did you mean 'resnet50'"),
        ("keras/resnet50", "library 'keras'"),
        ("torchvision/swin_t", "no map of stride 16"),
        ("timm/swin_tiny_patch4_window7_224", "one size only"),
        ("torchvision/vgg11", "pooling layer"),
    ],
)
def test_backbones_that_cannot_be(name, part):
    with pytest.raises(RecipeError, match=part), torch.device("meta"):  # the weights of VGG take a second
        build_backbone(name)


def test_too_many_frozen_stages():
    with pytest.raises(RecipeError, match="5 stages"):
        build_backbone("torchvision/mobilenet_v2", frozen_stages=9)
