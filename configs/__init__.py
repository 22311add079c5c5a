"""The YAML files that ship with the library: ``nbg_lightning.configs`` is their folder."""
