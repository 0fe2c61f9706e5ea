"""Where the rooms are joined. Start with `find.py`: the whole tool on one page."""
