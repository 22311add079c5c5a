"""Experiments that say beforehand what they ask, and go on after a kill.

An `Experiment` names its question, arms, budgets, seeds and contrasts. ``main(experiment)`` gives its script five commands:

    python EXPERIMENT.py tune         # the tuning seeds, for choosing settings: they are in no result
    python EXPERIMENT.py register     # writes registered/NAME.json, to be committed before the first run
    python EXPERIMENT.py run          # every job (budget, seed, arm) that is not done; several processes may share the work
    python EXPERIMENT.py status       # how many are done
    python EXPERIMENT.py summary      # results/NAME.json, the picture, and the tables of every page that shows it

Runs go on from the folder of runs. On a machine that does not have it, ``--published`` counts the runs of the same settings in
results/NAME.json as done: ``run`` adds seeds or arms, ``summary`` writes all.
"""

from harness.charges import Charges
from harness.command import main
from harness.experiment import Budget, Contrast, Experiment, Metric, Trend, candidates, rates
from harness.jobs import Job

__all__ = ["Budget", "Charges", "Contrast", "Experiment", "Job", "Metric", "Trend", "candidates", "main", "rates"]
