"""The protocols that a recipe can name; the only module that knows all of them."""

from sniper.evaluation.coco import CocoProtocol
from sniper.evaluation.config import CocoEvalConfig, ProtocolName
from sniper.evaluation.imagenet import ImagenetProtocol
from sniper.evaluation.openimages import OpenImagesProtocol
from sniper.evaluation.protocol import Protocol
from sniper.evaluation.voc import VocProtocol
from sniper.evaluation.widerface import WiderProtocol


def protocols_of(config: CocoEvalConfig) -> tuple[Protocol, ...]:
    """The protocols of a run, in the order of ``config.protocols``."""
    known: dict[ProtocolName, Protocol] = {
        "coco": CocoProtocol(config),
        "voc": VocProtocol(config.class_agnostic),
        "openimages": OpenImagesProtocol(),
        "wider": WiderProtocol(config.wider_truth),
        "imagenet": ImagenetProtocol(config.class_agnostic),
    }
    return tuple(known[name] for name in config.protocols)
