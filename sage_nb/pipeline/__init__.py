"""What a user writes: environments, streams, functions, services. Declares only; runs nothing."""
