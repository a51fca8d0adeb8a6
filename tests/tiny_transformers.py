"""Networks of transformers with some ten thousand weights, one of each type."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

_RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}  # fmt: skip
_HGNET = {
    "model_type": "hgnet_v2", "stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 16, 16],
    "stage_mid_channels": [8, 8, 8, 8], "stage_out_channels": [8, 16, 16, 16], "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True], "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5], "stage_numb_of_layers": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "embedding_size": 8,
    "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
_DETR = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 20,
    "auxiliary_loss": True, "dropout": 0.0, "backbone_config": _RESNET | {"out_features": ["stage4"]},
}  # fmt: skip
_RTDETR = {
    "backbone_config": _RESNET | {"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4]},
    "encoder_hidden_dim": 16, "encoder_in_channels": [8, 16, 16], "encoder_ffn_dim": 16, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "d_model": 16, "decoder_in_channels": [16, 16, 16],
    "num_queries": 20, "decoder_layers": 2, "num_denoising": 10, "freeze_backbone_batch_norms": False,
}  # fmt: skip
_DFINE = _RTDETR | {"backbone_config": _HGNET, "encoder_in_channels": [16, 16, 16], "max_num_bins": 8}
_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16,
    "mlp_ratio": 1, "out_indices": [1, 2],
}  # fmt: skip
_GROUPS = {
    "d_model": 16, "decoder_layers": 2, "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2,
    "decoder_ffn_dim": 16, "num_queries": 10, "group_detr": 2,
}  # fmt: skip

TINY_NETWORKS: dict[str, dict[str, Any]] = {
    "detr": _DETR,
    "table-transformer": _DETR,
    "conditional_detr": _DETR,
    "dab-detr": _DETR | {"hidden_size": 16},
    "deformable_detr": _DETR
    | {
        "d_model": 64, "backbone_config": _RESNET | {"out_features": ["stage2", "stage3", "stage4"]},
        "num_feature_levels": 3, "with_box_refine": True, "two_stage": True, "two_stage_num_proposals": 20,
    },
    "rt_detr": _RTDETR,
    "rt_detr_v2": _RTDETR,
    "d_fine": _DFINE,
    "deimv2": _DFINE,
    "yolos": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": [64, 64], "patch_size": 16, "num_detection_tokens": 20, "use_mid_position_embeddings": False,
        "hidden_dropout_prob": 0.0,
    },
    "lw_detr": _GROUPS
    | {
        "backbone_config": _VIT | {
            "model_type": "lw_detr_vit", "pretrain_image_size": 32, "window_block_indices": [0], "num_windows": 4,
        },
        "projector_scale_factors": [1.0],
    },
    "rf_detr": _GROUPS | {"backbone_config": _VIT | {"model_type": "rf_detr_dinov2", "num_windows": 2}},
}  # fmt: skip


def tiny_network(kind: str, names: tuple[str, ...] = ("blue", "green", "red")) -> nn.Module:
    """A network of the library with random weights, the same at every call."""
    from transformers import AutoConfig, AutoModelForObjectDetection

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **TINY_NETWORKS[kind])
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    network: nn.Module = AutoModelForObjectDetection.from_config(config)
    return network


def saved_network(folder: Path, kind: str, names: tuple[str, ...] = ("blue", "green", "red")) -> Path:
    """The folder, with what the library saves of such a network."""
    tiny_network(kind, names).save_pretrained(folder)
    return folder
