"""What runs inside the sandbox of programs: a judge with the tests, and the program in a process of its own."""
