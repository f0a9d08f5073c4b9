"""The curate job: embed, cluster and sample in order, resuming what is done."""

from __future__ import annotations

from pyspark.sql import SparkSession

from ..schemas.errors import ConfigurationError
from . import cluster, embed, sample
from .inputs import check_inputs
from .recipe import Recipe
from .runs import Result
from .scratch import check_place
from .store import Store


def run(spark: SparkSession, recipe: Recipe, *, fresh: bool = False) -> list[Result]:
    """Run a recipe from its source, or from the embeddings it brings, to the curated table.

    Args:
        spark: The session.
        recipe: All of it; everything is checked before any work.
        fresh: Start a job anew where it would be refused.

    Returns:
        The result of each job, in order.

    Raises:
        LakestrataError: As the jobs do.
    """
    if recipe.sample is None:
        raise ConfigurationError(["sample: missing: say how many items to take, as in --set sample.size=10000."])
    check_inputs(spark, recipe)
    check_place(Store(spark, recipe.work), recipe.cluster)
    jobs = (embed, cluster, sample) if recipe.source else (cluster, sample)
    return [job.run(spark, recipe, fresh=fresh) for job in jobs]
