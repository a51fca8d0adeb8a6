"""Mine, train, evaluate, predict: the only place where the layers are wired together."""
