"""The command line: verbs, thin over ``sniper.pipeline``.

A ``SniperError`` becomes one sentence on standard error and exit code 2; Ctrl-C exits with 130, a training that SIGTERM
stopped with 143. The verbs import what they need when they run, so that help is there at once.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from sniper import __version__
from sniper.cli.chips import chips_app
from sniper.cli.classes import classes_app
from sniper.cli.data import check, convert
from sniper.cli.display import LogLines, complain, err, say
from sniper.cli.export import export
from sniper.cli.inference import evaluate, predict, propose
from sniper.cli.plan import plan
from sniper.cli.score import score
from sniper.cli.start import demo, models, runs, settings
from sniper.cli.training import train
from sniper.cli.weights import download, import_mxnet
from sniper.errors import SniperError, StoppedError

__all__ = ["app", "main"]

# Threads that spin while they wait starve the ones that work as soon as another program runs: training took three times
# as long beside two others. torch reads this when it is loaded, which the verbs do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Train and run object detectors on images whose objects differ hugely in size.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # frames around help cost half of the time until it is there
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"sniper {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[LogLines()], force=True)
    logging.getLogger("sniper").setLevel(logging.INFO if verbose else logging.WARNING)


app.command()(plan)
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(score)
app.command()(propose)
app.command()(check)
app.command()(convert)
app.command()(export)
app.add_typer(chips_app, name="chips")
app.add_typer(classes_app, name="classes")
app.command()(import_mxnet)
app.command()(download)
app.command()(demo)
app.command()(models)
app.command()(settings)
app.command()(runs)


def main() -> None:
    """Entry point of the ``sniper`` command."""
    try:
        app(standalone_mode=True)
    except StoppedError as stopped:
        complain("stopped:", str(stopped))
        sys.exit(128 + stopped.number)
    except SniperError as error:
        complain("[bold red]error:[/]", str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped", err)
        sys.exit(130)
