"""Checks of the CUDA path: correctness against the CPU, speed and memory, in one command on one GPU without network."""
