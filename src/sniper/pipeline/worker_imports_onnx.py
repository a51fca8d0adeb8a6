"""As ``worker_imports``, for processes that run an ONNX file: without torch."""

from importlib import import_module

for _name in ("evaluate", "predict", "onnx_model"):
    import_module(f"sniper.pipeline.{_name}")
