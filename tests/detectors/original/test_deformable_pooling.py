"""Deformable RoI pooling against the original's recorded numbers, and against itself by other ways."""

import pytest
import torch

from devices import DEVICE
from recorded import GOLDEN, rounding
from sniper.detectors.original.deformable_pooling import deformable_pool

CASES = GOLDEN.cases("ops/deformable_psroi_pooling.npz")
OUT, GRADIENT = 16, 300  # units in the last place of the largest value; a cell gathers gradients of many bins


@pytest.fixture(params=["shared cells", "all cells"])
def way(request, monkeypatch):
    """Regions by the number of cells that they need, and all at once as in a compiled graph."""
    if request.param == "all cells":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    return request.param


def recorded(golden, case):
    data = golden.case("ops/deformable_psroi_pooling.npz", case)
    return {key: torch.from_numpy(array).to(DEVICE) for key, array in data.items()}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("at_once", [4, 512])
def test_recorded_pooling_and_gradients(golden, case, at_once):
    data = recorded(golden, case)
    groups, cells, samples, _, _, scale, shift_scale, still = data["params"].tolist()
    features = data["data"].requires_grad_()
    shifts = None if still else data["trans"].requires_grad_()
    out = deformable_pool(
        features, data["rois"][:, 0].long(), data["rois"][:, 1:], shifts, stride=round(1 / scale), cells=int(cells),
        groups=int(groups), samples=int(samples), shift_scale=shift_scale, regions_at_once=at_once,
    )  # fmt: skip
    torch.testing.assert_close(out, data["out"], rtol=0, atol=rounding(OUT, data["out"].cpu().numpy()))
    gradients = torch.autograd.grad(out, [features] if still else [features, shifts], data["grad_out"])
    for name, gradient in zip(("grad_data", "grad_trans"), gradients, strict=False):
        torch.testing.assert_close(gradient, data[name], rtol=0, atol=rounding(GRADIENT, data[name].cpu().numpy()))


def scene(shape, count=40, seed=0):
    """Double-precision features, images, boxes from points to ten maps, also outside, and shifts."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(shape, generator=generator, dtype=torch.float64)
    size = 16.0 * torch.tensor([shape[3], shape[2]], dtype=torch.float64)
    corner = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 2 - 0.5) * size
    side = size * 10 ** (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 3 - 2)
    shifts = torch.randn(count, 2, 7, 7, generator=generator, dtype=torch.float64)
    image = torch.randint(shape[0], (count,), generator=generator)
    return features.requires_grad_(), image, torch.cat((corner, corner + side), dim=1), shifts.requires_grad_()


@pytest.mark.parametrize("shape", [(1, 3, 20, 31), (2, 5, 1, 1), (1, 2, 1, 40), (3, 4, 64, 6)])
def test_sharing_cells_changes_nothing(monkeypatch, shape):
    features, image, boxes, shifts = scene(shape)
    ways = [deformable_pool(features, image, boxes, shifts, stride=16, regions_at_once=n) for n in (512, 3)]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    ways.append(deformable_pool(features, image, boxes, shifts, stride=16))
    weight = torch.randn_like(ways[0])
    gradients = [torch.autograd.grad(out, (features, shifts), weight) for out in ways]
    for out, found in zip(ways[1:], gradients[1:], strict=True):
        torch.testing.assert_close(out, ways[0])
        torch.testing.assert_close(found, gradients[0])


def test_compiles_without_graph_breaks():
    features, image, boxes, shifts = scene((2, 3, 12, 15))
    expected = deformable_pool(features, image, boxes, shifts, stride=16)
    compiled = torch.compile(deformable_pool, fullgraph=True, backend="aot_eager")
    found = compiled(features, image, boxes, shifts, stride=16)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad(out, (features, shifts), weight) for out in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("way")
def test_no_regions():
    features = torch.randn(1, 4, 8, 8, requires_grad=True)
    out = deformable_pool(features, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), stride=16)
    assert out.shape == (0, 4, 7, 7)
    out.sum().backward()
    assert features.grad.abs().sum() == 0


@pytest.mark.usefixtures("way")
def test_regions_outside_and_batches():
    features, image, boxes, shifts = scene((2, 3, 12, 15))
    boxes = boxes.clone()
    boxes[:2] = torch.tensor([[-900.0, -900, -500, -500], [5000, 10, 6000, 90]])
    together = deformable_pool(features, image, boxes, shifts, stride=16)
    assert together[:2].abs().max() == 0
    for i in (0, 5, 6):
        one = slice(i, i + 1)
        alone = deformable_pool(features[image[one]], image[one] * 0, boxes[one], shifts[one], stride=16)
        torch.testing.assert_close(alone, together[one])


@pytest.mark.usefixtures("way")
def test_numbers_gone_wrong_do_not_read_elsewhere():
    features, image, boxes, shifts = scene((1, 2, 6, 6))
    boxes = boxes.clone()
    boxes[0], boxes[1] = float("nan"), float("inf")
    out = deformable_pool(features, image, boxes, shifts, stride=16)
    assert out[0].isnan().any()
    assert out[2:].isfinite().all()


def test_half_precision_is_computed_in_single():
    features, image, boxes, shifts = scene((1, 2, 12, 12))
    out = deformable_pool(features.bfloat16(), image, boxes.bfloat16().float(), shifts.float(), stride=16)
    single = deformable_pool(features.bfloat16().float(), image, boxes.bfloat16().float(), shifts.float(), stride=16)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, single.bfloat16())
