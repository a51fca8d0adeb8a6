"""What the processes of ``processes.py`` are forked from has imported: this module is its preload."""

import gc
from importlib import import_module

# Collecting garbage again and again among the million objects of torch takes as long as the rest of importing it, and
# later collections would copy the pages that the processes share.
gc.disable()
for _name in ("evaluate", "predict", "propose"):
    import_module(f"sniper.pipeline.{_name}")
gc.freeze()
gc.enable()
