"""What differs from the library's defaults in published detectors, so that random weights need no network.

Where a model's own ``config.json`` is at hand, that is read instead. Without torch.
"""

from typing import Any


def _rtdetr(kind: str, depths: tuple[int, ...], layers: int = 6, **more: Any) -> dict[str, Any]:
    """RT-DETR on a ResNet-D; the small ones have basic blocks."""
    basic = layers < 6
    widths = [64, 128, 256, 512] if basic else [256, 512, 1024, 2048]
    trunk = {
        "model_type": "rt_detr_resnet",
        "depths": list(depths),
        "hidden_sizes": widths,
        "layer_type": "basic" if basic else "bottleneck",
        "out_indices": [2, 3, 4],
    }
    return {
        "model_type": kind,
        "backbone_config": trunk,
        "encoder_in_channels": widths[1:],
        "decoder_layers": layers,
        "hidden_expansion": 0.5 if basic else 1.0,
        **more,
    }


# Of ResNet-101.
_WIDE: dict[str, Any] = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384, 384, 384]}


def _rtdetrs(prefix: str, kind: str) -> dict[str, dict[str, Any]]:
    return {
        f"{prefix}r18vd": _rtdetr(kind, (2, 2, 2, 2), layers=3),
        f"{prefix}r34vd": _rtdetr(kind, (3, 4, 6, 3), layers=4),
        f"{prefix}r50vd": _rtdetr(kind, (3, 4, 6, 3)),
        f"{prefix}r101vd": _rtdetr(kind, (3, 4, 23, 3), **_WIDE),
    }


def _dfine_small() -> dict[str, Any]:
    """D-FINE on HGNetV2-B0."""
    trunk = {
        "model_type": "hgnet_v2",
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, 64, 256, 512],
        "stage_mid_channels": [16, 32, 64, 128],
        "stage_out_channels": [64, 256, 512, 1024],
        "stage_num_blocks": [1, 1, 2, 1],
        "stage_downsample": [False, True, True, True],
        "stage_light_block": [False, False, True, True],
        "stage_kernel_size": [3, 3, 5, 5],
        "stage_numb_of_layers": [3, 3, 3, 3],
        "hidden_sizes": [64, 256, 512, 1024],
        "depths": [1, 1, 2, 1],
        "embedding_size": 16,
        "use_learnable_affine_block": True,
        "out_features": ["stage2", "stage3", "stage4"],
    }
    return {
        "model_type": "d_fine",
        "backbone_config": trunk,
        "encoder_in_channels": [256, 512, 1024],
        "hidden_expansion": 0.5,
        "depth_mult": 0.34,
        "decoder_layers": 3,
        "decoder_n_points": [3, 6, 3],
        "freeze_backbone_batch_norms": False,
    }


def _resnet(kind: str, depth: int = 50, **more: Any) -> dict[str, Any]:
    """The DETRs on timm's ResNets."""
    trunk = {"use_timm_backbone": True, "backbone": f"resnet{depth}", "use_pretrained_backbone": False}
    return {"model_type": kind, **trunk, **more}


def _yolos(width: int, heads: int, **more: Any) -> dict[str, Any]:
    widths = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
    return {"model_type": "yolos", **widths, **more}


ARCHITECTURES: dict[str, dict[str, Any]] = {
    **_rtdetrs("PekingU/rtdetr_", "rt_detr"),
    **_rtdetrs("PekingU/rtdetr_v2_", "rt_detr_v2"),
    "ustc-community/dfine-small-coco": _dfine_small(),
    "facebook/detr-resnet-50": _resnet("detr"),
    "facebook/detr-resnet-101": _resnet("detr", 101),
    "microsoft/conditional-detr-resnet-50": _resnet("conditional_detr"),
    "IDEA-Research/dab-detr-resnet-50": _resnet("dab-detr"),
    "SenseTime/deformable-detr": _resnet("deformable_detr"),
    "AnnaZhang/lwdetr_small_60e_coco": {"model_type": "lw_detr", "projector_scale_factors": [1.0]},
    "Roboflow/rf-detr-base": {"model_type": "rf_detr"},
    "hustvl/yolos-tiny": _yolos(192, 3, image_size=[800, 1333], use_mid_position_embeddings=False),
}
