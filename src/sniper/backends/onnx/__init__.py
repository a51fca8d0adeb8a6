"""Networks in ONNX files, run by onnxruntime; without torch."""
