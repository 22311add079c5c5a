"""Checkers that others wrote, run on what a model wrote: inside the sandbox, with fresh state for each answer.

`server` is the first process of a sandbox. It imports a checker once and forks a child for each answer; `confinement` is what
the child can no longer do, `grammar` what Python text it may still evaluate, `kinds` the checkers. Nothing here imports the
rest of the library: the files are mounted into the sandbox by themselves.
"""
