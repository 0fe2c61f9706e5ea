"""Judging searches on recorded tables: each sees half of the seeds, its advice is judged on the others."""
