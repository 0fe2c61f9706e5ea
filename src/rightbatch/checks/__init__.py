"""Checks of a workload before any long work. `workload` and `runs` have the tables that a new check is a row of."""
