"""How fast sage_nb is, beside the loop a person would write by hand. Run with `make bench`."""
