"""Greedy suppression of all images of a batch in one launch: one program an image, block by block of boxes.

A block is compared with the boxes kept so far, then with itself. Within a block, "kept unless a better kept one
overlaps it" is repeated until nothing changes; that is the greedy answer, since box k is settled after k rounds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64


def keep_on_device(
    boxes: Tensor, candidates: Tensor, keep: int, iou: float, side_extra: float, area_extra: float
) -> tuple[Tensor, Tensor]:
    """``suppress.keep_greedily`` on the device of ``boxes``, without reading anything from it."""
    images, total = boxes.shape[:2]
    kept = torch.zeros(images, keep, dtype=torch.int64, device=boxes.device)
    counts = torch.zeros(images, dtype=torch.int64, device=boxes.device)
    near = torch.empty(images, keep, 4, dtype=torch.float32, device=boxes.device)
    if images and total and keep:
        _keep[(images,)](
            boxes.float().contiguous(), candidates.long().contiguous(), kept, counts, near,
            total, keep, iou, side_extra, area_extra, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
    return kept, counts


def rehearse() -> None:
    """Compile the kernel and run it once; whatever keeps it from working is raised here."""
    boxes = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 2, 2]]], device="cuda")
    counts = keep_on_device(boxes, torch.tensor([2], device="cuda"), 2, 0.5, 0.0, 0.0)[1]
    if counts.tolist() != [1]:
        raise RuntimeError(f"it keeps {counts.tolist()} of two equal boxes")


@triton.jit
def _overlaps(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2, iou, side_extra, area_extra):  # type: ignore[no-untyped-def]
    """(A, B) whether boxes a (A, 1) and b (1, B) overlap by more than ``iou``."""
    width = tl.maximum(tl.minimum(ax2, bx2) - tl.maximum(ax1, bx1) + side_extra, 0.0)
    height = tl.maximum(tl.minimum(ay2, by2) - tl.maximum(ay1, by1) + side_extra, 0.0)
    shared = width * height
    a = (ax2 - ax1 + area_extra) * (ay2 - ay1 + area_extra)
    b = (bx2 - bx1 + area_extra) * (by2 - by1 + area_extra)
    return tl.div_rn(shared, a + b - shared) > iou


@triton.jit  # type: ignore[untyped-decorator]
def _keep(  # type: ignore[no-untyped-def]
    boxes, candidates, kept, counts, near, total, keep, iou, side_extra, area_extra, BLOCK: tl.constexpr  # noqa: N803
):  # fmt: skip
    image = tl.program_id(0)
    last = tl.load(candidates + image).to(tl.int32)
    lane = tl.arange(0, BLOCK)
    boxes += image.to(tl.int64) * total * 4
    near += image.to(tl.int64) * keep * 4
    kept += image.to(tl.int64) * keep
    count = last * 0
    start = last * 0
    while (start < last) & (count < keep):
        index = start + lane
        inside = index < last
        x1 = tl.load(boxes + index * 4, mask=inside, other=0.0)
        y1 = tl.load(boxes + index * 4 + 1, mask=inside, other=0.0)
        x2 = tl.load(boxes + index * 4 + 2, mask=inside, other=0.0)
        y2 = tl.load(boxes + index * 4 + 3, mask=inside, other=0.0)
        free = inside.to(tl.int32)
        done = count * 0
        while done < count:
            other = done + lane
            real = other < count
            ox1 = tl.load(near + other * 4, mask=real, other=0.0)
            oy1 = tl.load(near + other * 4 + 1, mask=real, other=0.0)
            ox2 = tl.load(near + other * 4 + 2, mask=real, other=0.0)
            oy2 = tl.load(near + other * 4 + 3, mask=real, other=0.0)
            over = _overlaps(
                ox1[:, None], oy1[:, None], ox2[:, None], oy2[:, None],
                x1[None, :], y1[None, :], x2[None, :], y2[None, :], iou, side_extra, area_extra,
            )  # fmt: skip
            hit = tl.max((over & real[:, None]).to(tl.int32), axis=0)
            free = free * (1 - hit)
            done += BLOCK
        within = _overlaps(
            x1[:, None], y1[:, None], x2[:, None], y2[:, None],
            x1[None, :], y1[None, :], x2[None, :], y2[None, :], iou, side_extra, area_extra,
        )  # fmt: skip
        better = (within & (lane[:, None] < lane[None, :])).to(tl.int32)
        stays = free
        changed = count * 0 + 1
        while changed > 0:
            hit = tl.max(better * stays[:, None], axis=0)
            settled = free * (1 - hit)
            changed = tl.sum((settled != stays).to(tl.int32), axis=0)
            stays = settled
        rank = count + tl.cumsum(stays, axis=0) - 1
        put = (stays > 0) & (rank < keep)
        tl.store(kept + rank, index.to(tl.int64), mask=put)
        tl.store(near + rank * 4, x1, mask=put)
        tl.store(near + rank * 4 + 1, y1, mask=put)
        tl.store(near + rank * 4 + 2, x2, mask=put)
        tl.store(near + rank * 4 + 3, y2, mask=put)
        tl.debug_barrier()  # the next block reads what this one has kept
        count += tl.sum(put.to(tl.int32), axis=0)
        start += BLOCK
    tl.store(counts + image, count.to(tl.int64))
