"""
Experiments: the same training with several variants of a config and several seeds, compared with
confidence intervals.

Modules: `design` (what to run), `folds`, `runner` (runs it, and resumes), `reading` (results of the
finished runs), `statistics` (intervals and p-values), `costs`, `imbalance` (which component a data
set calls for), `results` (typed results), `files` and `page` (what is written).
"""
