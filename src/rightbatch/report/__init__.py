"""An answer for people: in the terminal, as figures, as a page. Needs no torch."""
