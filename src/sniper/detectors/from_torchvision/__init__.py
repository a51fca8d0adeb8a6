"""torchvision's detectors on chips: their own heads, with ignored objects left out of every loss.

One module a family says which of its candidates an ignored object takes out of training: ``rcnn``, ``retinanet``,
``fcos``, ``ssd``. ``docs/detectors.md``.
"""
