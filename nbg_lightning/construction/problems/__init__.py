"""Coding problems with tests, created from programs."""
