"""Pages that are written from what the package and its records say of themselves."""
