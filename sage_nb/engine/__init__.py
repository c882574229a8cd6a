"""How a graph runs: plan, generated loops, tasks, services, and one job's life."""
