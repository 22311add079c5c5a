"""One thread a process, before anything imports torch: two OpenMP threads on a shared core are slower than one."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
