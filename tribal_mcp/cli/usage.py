"""The help of the commands, and what is wrong with a command line, in plain words.

click parses; its help pages and messages are replaced here. Nothing heavy is imported, so that
`--help` answers at once.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from tribal_mcp.cli.text import filled
from tribal_mcp.errors import UsageError, exit_codes

_GAP = 2


class Choice(click.ParamType):  # type: ignore[type-arg] # no generic before click 8.4
    """One of a few values, each with its meaning."""

    name = "value"

    def __init__(self, meanings: Mapping[str, str]) -> None:
        self.meanings = meanings

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value itself, or the default of the option."""
        if value not in self.meanings and (param is None or value != param.default):
            self.fail(f"{value!r:.80} is not one of {', '.join(self.meanings)}.", param, ctx)
        return value


class Number(click.ParamType):  # type: ignore[type-arg] # as above
    """A number within bounds; whole if the bounds are."""

    name = "number"

    def __init__(self, lowest: float, highest: float) -> None:
        self._is_whole = isinstance(lowest, int)
        self._lowest = lowest
        self._highest = highest

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        text = str(value)
        try:
            if not re.fullmatch(r"[-+.0-9eE]+", text):  # Python also reads 1_0 and other digits
                raise ValueError  # noqa: TRY301 - the same message as for other text
            number = int(text) if self._is_whole else float(text)
        except ValueError:
            number = math.nan
        if not self._lowest <= number <= self._highest:
            what = "a whole number" if self._is_whole else "a number"
            bounds = f"from {self._lowest:g} to {self._highest:g}"
            self.fail(f"{str(value)!r:.80} is not {what} {bounds}.", param, ctx)
        return number


_F = TypeVar("_F", bound=Callable[..., Any])


def flag(option: str, help: str, name: str = "") -> Callable[[_F], _F]:  # noqa: A002 - click's name
    """An option without a value."""
    return click.option(option, *filter(None, [name]), is_flag=True, help=help)


def text_option(option: str, metavar: str, help: str, name: str = "") -> Callable[[_F], _F]:  # noqa: A002
    """An option with a text, which is empty by default."""
    return click.option(option, *filter(None, [name]), metavar=metavar, default="", help=help)


STORE_OPTIONS = {
    "data_dir": click.Option(
        ["--data-dir"],
        metavar="FOLDER",
        expose_value=False,
        help="The Chroma folder, instead of TRIBAL_DATA_DIR or a server.",
        callback=lambda ctx, _option, value: _keep(ctx, "data_dir", value),
    ),
    "collection": click.Option(
        ["--collection"],
        metavar="NAME",
        expose_value=False,
        help="The collection in it, instead of TRIBAL_COLLECTION.",
        callback=lambda ctx, _option, value: _keep(ctx, "collection", value),
    ),
}
"""The options of every command that say which store it uses."""
_STORE = "tribal.store"


def _keep(ctx: click.Context, name: str, value: str | None) -> None:
    if value is not None:
        ctx.meta.setdefault(_STORE, {})[name] = value


def store_options() -> dict[str, str]:
    """Those of `STORE_OPTIONS` that the running command was given, by the names of settings."""
    return dict(click.get_current_context().meta.get(_STORE, {}))


class Command(click.Command):
    """A command with our help page, that refuses surplus arguments in our words."""

    allow_extra_args = True

    def __init__(self, *args: Any, **attributes: Any) -> None:  # noqa: ANN401 - click's arguments
        super().__init__(*args, **attributes)
        self.params += STORE_OPTIONS.values()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse what is left over."""
        try:
            self._refuse_repeated(ctx, args)
            rest = super().parse_args(ctx, args)
        except click.BadOptionUsage as error:
            error.ctx = ctx  # which click leaves out
            raise
        if rest and not ctx.resilient_parsing:
            raise click.UsageError(f"Unexpected argument: {rest[0]!r:.80}.", ctx)
        return rest

    def _refuse_repeated(self, ctx: click.Context, args: list[str]) -> None:
        """Refuse an option that is given twice; click would take the last value."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for param in given:
            is_single = isinstance(param, click.Option) and not (param.multiple or param.is_flag)
            if is_single and given.count(param) > 1:
                raise click.UsageError(f"{param.opts[-1]} is given twice. Give it once.", ctx)

    def get_help(self, ctx: click.Context) -> str:
        """The whole page."""
        arguments = [p for p in self.params if isinstance(p, Argument)]
        usage = [ctx.command_path, "[OPTIONS]", *(p.in_usage for p in arguments)]
        parts = [f"Usage: {' '.join(usage)}", _paragraph(self.help)]
        if arguments:
            rows = [(str(p.metavar), p.help or "") for p in arguments]
            parts.append("Arguments:\n" + _table(rows))
        parts.append("Options:\n" + _options(self, ctx))
        return "\n\n".join(parts)


class Argument(click.Argument):
    """A positional argument with help, on every version of click."""

    def __init__(self, *args: Any, help: str, **attributes: Any) -> None:  # noqa: A002, ANN401 - click's names
        super().__init__(*args, **attributes)
        self.help = help

    @property
    def in_usage(self) -> str:
        """As it is written in a usage line."""
        name = f"{self.metavar}..." if self.nargs == -1 else str(self.metavar)
        return name if self.required else f"[{name}]"


class Group(click.Group):
    """All commands, listed in the order of their use."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or an error that names the one that was probably meant."""
        name = args[0]
        if name not in self.commands:
            likely = _likely(name, list(self.commands))
            raise click.UsageError(f"There is no command {name!r:.80}.{likely}", ctx)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """The whole page."""
        commands = [(name, command.short_help or "") for name, command in self.commands.items()]
        codes = [(f"{code:>3}", meaning) for code, meaning in exit_codes().items()]
        return "\n\n".join(
            [
                f"Usage: {ctx.command_path} [COMMAND] [OPTIONS]",
                _paragraph(self.help),
                "Commands:\n" + _table(commands),
                "Options:\n" + _options(self, ctx),
                "Exit codes:\n" + _table(codes),
                _paragraph(self.epilog),
            ]
        )


def _paragraph(text: str | None) -> str:
    return filled(" ".join((text or "").split()))


def _options(command: click.Command, ctx: click.Context) -> str:
    lines = []
    options = [p for p in command.get_params(ctx) if isinstance(p, click.Option)]
    names = [_names(option) for option in options]
    left = max(map(len, names))
    for name, option in zip(names, options, strict=True):
        lines.append(_table([(name, option.help or "")], left))
        if isinstance(option.type, Choice):
            values = [
                (value, f"{meaning} (default)" if value == option.default else meaning)
                for value, meaning in option.type.meanings.items()
            ]
            lines.append(_table(values, indent=2 + left + 2 * _GAP))
    return "\n".join(lines)


def _names(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    return ", ".join(option.opts) + value


def _table(rows: list[tuple[str, str]], left: int = 0, indent: int = 2) -> str:
    """Two columns, the first `left` wide or as wide as its longest name."""
    left = left or max(len(name) for name, _ in rows)
    margin = " " * (indent + left + _GAP)
    return "\n".join(
        filled(meaning, f"{' ' * indent}{name:<{left}}{' ' * _GAP}", margin)
        for name, meaning in rows
    )


def in_our_words(error: click.UsageError) -> UsageError:
    """What is wrong with a command line, and which help page to read."""
    path = error.ctx.command_path if error.ctx else "tribal-mcp"
    return UsageError(f"{_problem(error)} For help, run `{path} -h`.")


def _problem(error: click.UsageError) -> str:
    options = [o for o in _parameters(error) if isinstance(o, click.Option)]
    match error:
        case click.NoSuchOption():
            known = [name for option in options for name in option.opts]
            likely = _likely(error.option_name, known)
            return f"There is no option {error.option_name!s:.80}.{likely}"
        case click.MissingParameter(param=click.Argument() as missing):
            return f"Missing argument: {missing.metavar}."
        case click.BadParameter(param=click.Parameter() as wrong):
            return f"{wrong.opts[0]}: {error.message}"
        case click.BadOptionUsage():
            is_flag = all(o.is_flag for o in options if error.option_name in o.opts)
            takes = "takes no value" if is_flag else "needs a value"
            return f"{error.option_name} {takes}."
    return error.message


def _parameters(error: click.UsageError) -> list[click.Parameter]:
    return error.ctx.command.get_params(error.ctx) if error.ctx else []


def _likely(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
