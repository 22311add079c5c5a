"""Code that runs inside the sandbox for programs: a judge with the tests, and the program in a separate process."""
