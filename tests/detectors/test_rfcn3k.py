"""R-FCN-3K: the votes of position-sensitive maps, scores as a product, and a detector that learns and detects."""

from pathlib import Path

import pytest
import torch
from drawn_chips import CHIPS, VALID, batch_of
from torch import Tensor

from facts import facts
from sniper.detectors.protocol import Detector, FocusDetector, ProposalTrainer, Proposer
from sniper.detectors.rfcn3k.clusters import read_clusters, write_clusters
from sniper.detectors.rfcn3k.config import Rfcn3kConfig
from sniper.detectors.rfcn3k.head import DecoupledHead, DecoupledOutput, scores_of
from sniper.detectors.rfcn3k.network import Rfcn3k, build_rfcn3k, decoupled_losses
from sniper.errors import RecipeError
from sniper.nn.config import AnchorConfig
from sniper.nn.roi import RegionTargets
from sniper.structures import Images
from sniper.training.checkpoint import CheckpointMeta, save_weights
from sniper.training.finetune import start_from

GROUPS = torch.tensor([0, 1, 0])
TINY = {
    "backbone": "timm/test_resnet", "weights": None, "channels": 32, "rpn_channels": 32, "head_channels": 48,
    "anchors": AnchorConfig(scales=(1, 2, 4)), "super_classes": 2, "clusters": "clusters.txt",
}  # fmt: skip


def tiny(groups: Tensor = GROUPS, **settings: object) -> Rfcn3k:
    torch.manual_seed(0)
    return build_rfcn3k(Rfcn3kConfig(**{**TINY, **settings}), groups)


def at(plane: Tensor, y: float, x: float) -> Tensor:
    """Bilinear value of an (H, W) map at a point; 0 more than a cell outside."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, across = y - top, x - left
    upper = plane[top, left] * (1 - across) + plane[top, left + 1] * across
    lower = plane[top + 1, left] * (1 - across) + plane[top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


def votes_by_hand(maps: Tensor, box: Tensor, cells: int, stride: int) -> Tensor:
    """Each cell of a region reads its own map, at 2 x 2 points, then all cells vote (arXiv 1605.06409, section 2)."""
    left, top, right, bottom = (float(side) / stride - 0.5 for side in box)
    cell_w, cell_h = (right - left) / cells, (bottom - top) / cells
    votes = []
    for own in maps.view(-1, cells, cells, *maps.shape[1:]):
        read = [
            at(own[row, column], top + (row + (i + 0.5) / 2) * cell_h, left + (column + (j + 0.5) / 2) * cell_w)
            for row in range(cells) for column in range(cells) for i in range(2) for j in range(2)
        ]  # fmt: skip
        votes.append(torch.stack(read).mean())
    return torch.stack(votes)


@pytest.mark.parametrize("count", [1, 3])
def test_votes_are_those_of_a_plain_reference(count: int) -> None:
    torch.manual_seed(0)
    head = DecoupledHead(8, 16, torch.zeros(5, dtype=torch.int64), count, channels=6, cells=7)
    for layer in (head.groups, head.boxes):
        torch.nn.init.normal_(layer.weight)
    features = torch.randn(2, 8, 12, 10)
    image = torch.tensor([0, 1, 1])
    boxes = torch.tensor([[3.0, 5.0, 90.0, 70.0], [0.0, 0.0, 160.0, 192.0], [100.0, 120.0, 159.0, 180.0]])
    with torch.no_grad():
        output, reduced = head(features, image, boxes), head.reduce(features)
    for maps, found in ((head.groups(reduced), output.groups), (head.boxes(reduced), output.deltas)):
        expected = torch.stack([votes_by_hand(maps[i], box, 7, 16) for i, box in zip(image, boxes, strict=True)])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_one_super_class_scores_as_the_original() -> None:
    """Score = P(object) P(class | region), fine softmax over the classes alone, no background among them."""
    objectness = torch.tensor([[0.3, 1.9], [2.0, -1.0]])
    fine = torch.tensor([[0.1, 2.0, -0.5], [1.0, 1.0, 1.0]])
    expected = torch.stack([
        objectness[k].exp()[1] / objectness[k].exp().sum() * fine[k].exp() / fine[k].exp().sum() for k in range(2)
    ])  # fmt: skip
    torch.testing.assert_close(scores_of(objectness, fine, torch.zeros(3, dtype=torch.int64)), expected)


def test_several_super_classes_score_their_own_classes() -> None:
    groups, fine = torch.tensor([[0.0, 3.0, -3.0]]), torch.zeros(1, 3)
    p = groups.softmax(dim=1)[0]
    torch.testing.assert_close(scores_of(groups, fine, GROUPS), torch.stack([p[1], p[2], p[1]])[None] / 3)


def test_losses_are_sums_over_the_regions_and_fine_classes_learn_from_objects_alone() -> None:
    groups = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    fine = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).repeat(4, 1)
    labels = torch.tensor([2, 0, -1, 1])  # class 1, background, an empty place, class 0
    nothing = torch.zeros(4, dtype=torch.int64)
    targets = RegionTargets(nothing, boxes, labels, boxes, nothing)
    losses = decoupled_losses(DecoupledOutput(groups, fine, torch.zeros(4, 4)), targets, GROUPS, fine_weight=1.5)
    log_groups, log_fine = groups.log_softmax(dim=1), fine.log_softmax(dim=1)
    torch.testing.assert_close(losses["group"], -(log_groups[0, 2] + log_groups[1, 0] + log_groups[3, 1]) / 3)
    torch.testing.assert_close(losses["fine"], -1.5 * (log_fine[0, 1] + log_fine[3, 0]) / 3)
    losses["fine"].backward()
    assert (fine.grad[1:3] == 0).all()


def test_it_learns_all_that_a_batch_shows() -> None:
    detector = tiny(focus=True).train()
    assert all(isinstance(detector, one) for one in (Detector, Proposer, ProposalTrainer, FocusDetector))
    optimizer = torch.optim.AdamW(detector.parameters(), lr=4e-3)
    batch, first = batch_of(CHIPS), {}
    for step in range(25):
        losses = detector.losses(batch, torch.Generator().manual_seed(step))
        assert sorted(losses) == ["box", "fine", "focus", "group", "rpn_box", "rpn_class"]
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        first = first or {name: float(loss.detach()) for name, loss in losses.items()}
    assert all(torch.isfinite(loss) for loss in losses.values())
    shares = detector.training_metrics()
    assert sorted(shares) == ["class_accuracy", "focus_recall_at_10", "super_class_accuracy"]
    right, regions = shares["super_class_accuracy"].tolist()
    assert 0.5 * regions < right <= regions
    assert shares["class_accuracy"][0] <= shares["class_accuracy"][1] == regions > 0
    assert detector.training_metrics()["class_accuracy"].tolist() == [0, 0]
    assert losses["fine"] < 0.6 * first["fine"]
    assert losses["group"] < 0.5 * first["group"]
    found = detector.eval().detect(Images(batch.pixels, batch.valid_hw, batch.scale))
    assert all(one.labels.max() < 3 and (one.scores.diff() <= 0).all() for one in found if len(one))


def test_super_classes_and_classes_are_counted_where_there_are_objects() -> None:
    detector = tiny()
    groups = torch.tensor([[9.0, 0, 1], [0, 0, 1], [0, 2, 1], [0, 2, 1]])  # background is left aside
    fine = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    labels, nothing = torch.tensor([2, 2, 0, 1]), torch.zeros(4, dtype=torch.int64)
    boxes = torch.zeros(4, 4)
    detector._count(DecoupledOutput(groups, fine, boxes), RegionTargets(nothing, boxes, labels, boxes, nothing))
    shares = {name: share.tolist() for name, share in detector.training_metrics().items()}
    assert shares == {"super_class_accuracy": [3, 3], "class_accuracy": [1, 3]}
    assert sorted(tiny(torch.tensor([0, 0, 0]), super_classes=1, clusters=None).training_metrics()) == [
        "class_accuracy"
    ]


def test_no_objects_give_finite_losses_that_reach_the_parameters() -> None:
    detector = tiny().train()
    losses = detector.losses(batch_of([[], []]))
    assert losses["fine"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in detector.head.parameters())


def test_regions_unlikely_to_be_objects_are_dropped() -> None:
    detector = tiny(object_threshold=0.0).eval()
    chip = [((20, 30, 60, 80), 0, VALID)]
    batch = batch_of([chip])
    images = Images(batch.pixels, batch.valid_hw, batch.scale)
    assert len(detector.detect(images)[0])
    detector.config = detector.config.model_copy(update={"object_threshold": 0.999})
    assert not len(detector.detect(images)[0])


def test_several_super_classes_need_clusters() -> None:
    with pytest.raises(ValueError, match=r"super_classes: 3 needs clusters"):
        Rfcn3kConfig(super_classes=3)


def test_clusters_are_read_by_name_and_refused_by_line(tmp_path: Path) -> None:
    file = tmp_path / "clusters.txt"
    write_clusters(file, {"wolf": 1, "screw": 0, "dog": 1})
    assert file.read_text() == "0\tscrew\n1\twolf\n1\tdog\n"
    assert read_clusters(file, ["dog", "screw"], 2) == [1, 0]
    for text, needed in (
        ("0 wolf\n", ("line 1", "tab", "0 wolf")),
        ("0\twolf\n2\tdog\n", ("line 2", "2", "super_classes")),
        ("0\twolf\n1\twolf\n", ("line 2", "wolf")),
        ("0\twolf\n", ("no line", "dog")),
    ):
        file.write_text(text)
        with pytest.raises(RecipeError, match=facts(*needed)):
            read_clusters(file, ["wolf", "dog"], 2)


def test_a_checkpoint_keeps_the_super_classes_by_name(tmp_path: Path) -> None:
    """Fine-tuning on other classes: known ones keep their group and their row, new ones begin in group 0."""
    former = tiny()
    meta = CheckpointMeta(class_names=("a", "b", "c"), class_ids=(1, 2, 3))
    save_weights(tmp_path / "former.safetensors", former.state_dict(), meta)
    torch.manual_seed(1)
    detector = build_rfcn3k(Rfcn3kConfig(**TINY), torch.zeros(2, dtype=torch.int64))
    start = start_from(detector, tmp_path / "former.safetensors", ("new", "b"))
    assert start.shared_classes == 1
    assert detector.head.membership.group.tolist() == [0, 1]
    torch.testing.assert_close(detector.head.fine.weight[1], former.head.fine.weight[1])
