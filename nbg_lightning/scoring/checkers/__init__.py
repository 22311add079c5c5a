"""Third-party checkers applied to model output: inside the sandbox, with fresh state for each answer.

`server` is the first process of a sandbox. It imports a checker once and forks a child for each answer; `confinement` restricts
the child, `grammar` defines which Python text it may still evaluate, and `kinds` has the checkers. Nothing here imports the
rest of the library, since these files are mounted into the sandbox on their own.
"""
