"""What is measured on a workload by running it; returns records, stores nothing."""
