"""The works: their data, the callables that everyone calls, and the loop by hand. Nothing here knows sage_nb."""
