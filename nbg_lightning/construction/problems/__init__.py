"""Coding problems with tests that are made from programs."""
