"""Programs that train: started from a command line, read line by line, ended cleanly."""

from rightbatch.commands.command import Command, CommandRunner

__all__ = ["Command", "CommandRunner"]
