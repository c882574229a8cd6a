"""Who runs pipelines: the in-kernel JobManager, its jobs, and the environment that submits to it."""
