"""Where distillation's targets come from: a live model, a cache on disk, or a server."""
