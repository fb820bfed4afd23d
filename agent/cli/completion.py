"""`wantd completion SHELL`: a completion script, made of the command line as it is."""

from __future__ import annotations

import argparse

import shtab

from agent.errors import Exit

EXAMPLES = """\
examples:
  wantd completion bash > ~/.local/share/bash-completion/completions/wantd
  wantd completion zsh > ~/.zfunc/_wantd      # fpath+=~/.zfunc before compinit
  wantd completion fish > ~/.config/fish/completions/wantd.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For which shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that reads the script")


def call(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from agent.cli import parser

    print(shtab.complete(parser(), shell=arguments.shell))
    return Exit.OK
