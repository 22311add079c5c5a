"""File names in a checkpoint; those of the ranks are torch.distributed.checkpoint's."""

META, METADATA, DIGESTS = "meta.pt", ".metadata", "digests.json"
