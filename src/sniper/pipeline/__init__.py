"""Mine, train, evaluate, predict: the only place where the layers are wired together."""

from sniper.pipeline.chips import chip_preview, chip_stats
from sniper.pipeline.convert import import_mxnet
from sniper.pipeline.evaluate import Evaluation, evaluate
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.predict import predict, predict_stream
from sniper.pipeline.prediction import Prediction, Predictions
from sniper.pipeline.propose import Proposed, propose
from sniper.pipeline.train import TrainedRun, train

__all__ = [
    "Evaluation",
    "Model",
    "Prediction",
    "Predictions",
    "Proposed",
    "TrainedRun",
    "chip_preview",
    "chip_stats",
    "evaluate",
    "import_mxnet",
    "load_model",
    "predict",
    "predict_stream",
    "propose",
    "train",
]
