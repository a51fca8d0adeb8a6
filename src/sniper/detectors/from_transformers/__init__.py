"""Query-based detectors of the transformers library on chips: their own losses, ignored objects left out of them.

One rule in ``criteria`` holds for every family, decoder layer, denoising group and two-stage output.
``docs/detectors.md``.
"""
