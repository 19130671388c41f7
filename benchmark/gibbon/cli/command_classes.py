"""Classes of commands: other spellings of options, usage and examples in `--help`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from gibbon.cli.aliases import known_spelling
from gibbon.cli.options import GROUPS
from gibbon.core.errors import SpecError, suggest

UNKNOWN = "ignore_unknown_options"  # of commands whose other options are read later

IN_ORDER = (
    *("evaluate", "init", "run", "merge", "check", "audit", "sweep", "list", "explain"),
    *("train", "compare", "report", "view", "baseline", "plugin"),
)


class Command(TyperCommand):
    """A command that takes other spellings of its options, and lists them for an unknown one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the words after other spellings of options are replaced.

        Raises `SpecError` for an option that the command does not have.
        """
        known = [flag for each in self.params for flag in (*each.opts, *each.secondary_opts)]
        known = [flag for flag in known if flag.startswith("--")]
        words, left = [], list(args)
        while left:
            word = left.pop(0)
            flag, equals, value = word.partition("=")
            if word == "--" or not word.startswith("--"):
                words.append(word)
                continue
            meant = known_spelling(flag, known)
            if meant not in (*known, "--help") and not self.context_settings.get(UNKNOWN):
                raise SpecError(
                    f"No such option: {flag}{suggest(flag, known)} The options of {self.name}: "
                    f"{', '.join(known)}"
                )
            words.append(f"{meant}{equals}{value}")
        return super().parse_args(ctx, words)


class WithExamples(Command):
    """A command whose usage names the arguments first and whose epilogue holds examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the arguments, then the options."""
        options, *arguments = super().collect_usage_pieces(ctx)
        return [*arguments, options]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes examples."""
        with formatter.section("Examples"):
            lines = (self.epilog or "").splitlines()
            formatter.write("".join(f"  {line}\n" for line in lines))


class OrderedCommand(WithExamples):
    """A command that gets its words unparsed, because their order says which belong together."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Leaves all words to the command, except ``--help``."""
        TyperCommand.parse_args(self, ctx, ["--help"] if "--help" in args else [])
        ctx.args = list(args)
        return args

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the options in groups."""
        for group, (text, options) in GROUPS.items():
            with formatter.section(group):
                formatter.write_text(text)
                formatter.write_dl([(each.usage, each.full_help) for each in options])


class CommandsInOrder(TyperGroup):
    """Commands in the order in which they are needed, for `--help`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of all commands."""
        return sorted(super().list_commands(ctx), key=IN_ORDER.index)
