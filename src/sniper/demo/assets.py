"""The photos, crowns and weights that ``sniper demo`` needs, packed inside ``sniper``.

*Photos.* Four aerial photos at 10 cm a pixel with 951 tree crowns (class ``Tree``), taken by the Airborne
Observation Platform of NEON and annotated by the authors of the package ``deepforest`` 2.1.0, whence they
come. Living and dead trees, which one of the four tells apart, are one class here.

*The split is by place.* Cutting held-out windows out of a photo that is also trained on would test the same
clearing, light and season again, and would halve the crowns along each cut. So whole photos are held out:

========  ==========================================  ===========  ======  =====================================
part      photo                                       pixels       crowns  place
========  ==========================================  ===========  ======  =====================================
train     ``2019_YELL_2_528000_4978000_image_crop2``  2299 x 2472  574     Yellowstone: meadow and open wood
train     ``OSBS_029``                                400 x 400    61      Ordway-Swisher, Florida: sandhill pine
train     ``SOAP_061``                                400 x 400    37      Soaproot Saddle, California: dead pine
held out  ``2019_YELL_2_541000_4977000_image_crop``   1249 x 1035  279     Yellowstone: dense wood along a road
========  ==========================================  ===========  ======  =====================================

The two Yellowstone photos lie 13 km apart: the numbers in their names are the eastings and northings, in
metres, of the survey tiles they were cut from. That leaves 672 crowns to train on and 279, in another kind of
forest, to test on. The large photo has what chips are for: crowns from 8 to 106 px (square root of the area)
and a meadow without any.

*Weights.* The ``features`` of torchvision's MobileNetV2, trained on ImageNet, in half precision under
torchvision's names; the last 1 x 1 convolution (``features.18``) and the classifier, which no detector uses,
are left out.

*Trained weights.* The demo's own detector after ten minutes of CPU time on the three training photos, in half
precision: two minutes from ImageNet weights are too short to show anything. The held-out photo took no part in it;
``tools/make_demo_checkpoint.py`` tells how it was made.

``tools/make_demo_data.py`` makes all the rest again from the two packages; ``NOTICE`` names authors and licences.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from sniper.errors import DataError

CREDIT = (
    "Photos: National Ecological Observatory Network (NEON), a program sponsored by the U.S. National Science "
    "Foundation and operated under cooperative agreement by Battelle. Crowns: the DeepForest authors (MIT)."
)


@dataclass(frozen=True, slots=True)
class DemoData:
    """COCO JSON files; their photos lie beside them."""

    train: Path
    heldout: Path


def _packaged(name: str) -> Path:
    path = Path(str(files("sniper.demo") / "data" / name))
    if not path.is_file():
        raise DataError(f"{path}: a file of the sniper package was expected here but is gone; reinstall it")
    return path


def demo_data() -> DemoData:
    """The tree crowns, split by place into what is trained on and what is held out.

    Raises:
        DataError: the installation is incomplete.
    """
    return DemoData(train=_packaged("tree_crowns/train.json"), heldout=_packaged("tree_crowns/heldout.json"))


def imagenet_mobilenet_v2() -> Path:
    """A safetensors file: ``features.0`` ... ``features.17`` of torchvision's MobileNetV2, fp16.

    Raises:
        DataError: the installation is incomplete.
    """
    return _packaged("mobilenet_v2_imagenet_fp16.safetensors")


def trained_crowns() -> Path:
    """A safetensors file: the detector of the recipe ``demo`` after ten minutes on the training photos, fp16.

    Raises:
        DataError: the installation is incomplete.
    """
    return _packaged("tree_crowns_fp16.safetensors")
