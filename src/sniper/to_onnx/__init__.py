"""Detectors as ONNX files for other runtimes."""
