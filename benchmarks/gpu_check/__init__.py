"""Does the CUDA path do what the CPU path does, how fast, and in how much memory: one command, one GPU, no network."""
