"""Networks behind inference: one file a runtime."""
