"""The command line: `lakestrata JOB --config recipe.yaml [--set key=value ...]`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from threading import Thread
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from .. import __version__
from ..schemas.errors import ConfigurationError, LakestrataError, ResumeError
from .recipe import load_recipe

app = typer.Typer(
    name="lakestrata",
    help="Turn a data lake of images or texts into a balanced training set, on Spark and Delta Lake.\n\n"
    "A recipe (YAML) says where the items are and what to make of them; the jobs read it: "
    "embed -> cluster -> sample, or curate for all of them; evaluate tells whether it helped. "
    "Start with: lakestrata demo",
    epilog="Recipes that come along: lakestrata recipes. Exit status: 0 done, 1 failed, 2 recipe or input is wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    str,
    typer.Option("--config", "-c", help="A recipe: path of a YAML file, or the name of one that comes along."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set a key of the recipe, as in sample.size=1000; may be repeated."),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Where the recipe or its input changed: start anew, replacing what is there."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]


@app.command()
def embed(config: Config, settings: Settings = None, fresh: Fresh = False, quiet: Quiet = False) -> None:
    """Embed the source's items; what was embedded before with the same content and encoder stays."""
    _run("embed", config, settings, fresh, quiet)


@app.command()
def cluster(config: Config, settings: Settings = None, fresh: Fresh = False, quiet: Quiet = False) -> None:
    """Cluster the embeddings into a tree, bottom-up."""
    _run("cluster", config, settings, fresh, quiet)


@app.command()
def sample(config: Config, settings: Settings = None, fresh: Fresh = False, quiet: Quiet = False) -> None:
    """Take a balanced sample from the tree: the curated table."""
    _run("sample", config, settings, fresh, quiet)


@app.command()
def curate(config: Config, settings: Settings = None, fresh: Fresh = False, quiet: Quiet = False) -> None:
    """Embed, cluster and sample, in order, resuming what is done."""
    _run("curate", config, settings, fresh, quiet)


@app.command()
def evaluate(config: Config, settings: Settings = None, quiet: Quiet = False) -> None:
    """Compare the curated table with random sets of its size: did curation help, and how far towards an even set?"""
    _log(quiet)
    recipe = load_recipe(config, settings or ())
    from . import evaluate as evaluate_job
    from .session import get_session

    found = evaluate_job.run(get_session(), recipe)
    found.print_to(Console(width=max(120, Console().width)))  # a narrower table breaks names in two


@app.command()
def demo(
    settings: Settings = None,
    fresh: Fresh = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each step.")] = False,
) -> None:
    """Curate scikit-learn's handwritten digits, made long-tailed, in ./demo."""
    _log(quiet=not verbose)
    recipe = load_recipe("demo", settings or ())
    from . import demo as demo_job
    from .session import get_session

    console = Console()
    Thread(target=demo_job.import_libraries, daemon=True).start()
    with console.status("starting Spark"):
        spark = get_session(small=True)
    demo_job.run(spark, recipe, console, fresh=fresh)


@app.command()
def plan(
    config: Config,
    settings: Settings = None,
    cores: Annotated[int | None, typer.Option("--cores", min=1, help="Cores of all executors together.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, help="GPUs of all executors together.")] = None,
) -> None:
    """Estimate what cluster will take, and name what will not fit; the status is 2 if it would refuse to begin."""
    _log(quiet=True)
    recipe = load_recipe(config, settings or ())
    from . import plan as plan_job

    spark = None
    if plan_job.needs_spark(recipe):
        from .session import get_session

        spark = get_session(small=True)
    made = plan_job.run(spark, recipe, cores, gpus)
    made.print_to(Console(width=max(130, Console().width)))  # a narrower table breaks numbers in two
    if not made.is_possible:
        raise typer.Exit(2)


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None) -> None:
    """List the recipes that come along, or print one to start from."""
    from .recipe import packaged_recipes

    found = packaged_recipes()
    if name is None:
        for key, text in found.items():
            typer.echo(f"{key:12}{text.splitlines()[0].lstrip('# ')}")
    elif name in found:
        typer.echo(found[name], nl=False)
    else:
        raise ConfigurationError([f"{name}: no recipe of that name here (there are: {', '.join(found)})."])


@app.command("import-npy")
def import_npy(
    file: Annotated[str, typer.Argument(help="A .npy file of vectors, shape (n, d), that all workers can read.")],
    table: Annotated[str, typer.Argument(help="The Delta table to make: a name, or a path.")],
) -> None:
    """Import vectors from a .npy file into a Delta table with columns id (the row number) and embedding."""
    _log(quiet=False)
    from .import_npy import run
    from .session import get_session

    typer.echo(f"{table}: {run(get_session(), file, table):,} rows")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"lakestrata {__version__}")
        raise typer.Exit


def _run(job: str, config: str, settings: Sequence[str] | None, fresh: bool, quiet: bool) -> None:
    _log(quiet)
    recipe = load_recipe(config, settings or ())
    # Spark is imported once the recipe is known to be right: a typing mistake is told at once.
    from . import cluster, curate, embed, sample
    from .session import get_session

    jobs: dict[str, Any] = {"embed": embed, "cluster": cluster, "sample": sample, "curate": curate}
    results = jobs[job].run(get_session(), recipe, fresh=fresh)
    for result in results if isinstance(results, list) else [results]:
        typer.echo(str(result))
        for table, version in sorted(result.outputs.items()):
            typer.echo(f"  {table}: {version}")


def _log(quiet: bool) -> None:
    terminal = sys.stderr.isatty()
    handler: logging.Handler = logging.StreamHandler()
    if terminal:
        from .progress import console

        handler = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(__package__.split(".")[0])
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors a user can mend are one line each on standard error."""
    try:
        app(arguments, prog_name="lakestrata")
    except LakestrataError as error:
        for line in error.message.splitlines():
            sys.stderr.write(f"lakestrata: {line}\n")
        sys.exit(2 if isinstance(error, ConfigurationError | ResumeError) else 1)
