"""The embed job: items in, embeddings out; what cannot be decoded goes to quarantine."""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from math import ceil
from uuid import uuid4

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ..schemas.errors import ConfigurationError, LakestrataError
from ..schemas.tables import ENCODERS, QUARANTINE, embeddings, staged
from ..udfs.decode import ItemError, decode
from ..udfs.embed import embed_column
from ..udfs.encoders import EncoderSpec, fit
from ..udfs.kept import small_batches
from .inputs import check_inputs, open_source
from .quarantine import count_aside, publish_aside
from .recipe import Recipe, semantic
from .runs import Result, Run, begin
from .store import DeltaTable, Input, Store
from .vectors import id_type_of, quarantine_rows, split_by_key

logger = logging.getLogger(__name__)

JOB = "embed"
_FIT_SAMPLE = 1000  # items that a fitted encoder sees
_KEY_REASONS = ("null_id", "duplicate_id")
_ASIDE = f"job = '{JOB}'"  # the embeddings are those of the whole `work`, whatever the recipe's name


def run(spark: SparkSession, recipe: Recipe, *, fresh: bool = False) -> Result:
    """Embed the items of a recipe's source; those embedded before with the same content and encoder stay.

    Args:
        spark: The session.
        recipe: What to embed, and how.
        fresh: Embed everything anew where another encoder was used under the same name.

    Returns:
        Rows embedded (now or before) and set aside, and the tables written: embeddings, encoders.

    Raises:
        ConfigurationError: If the source or its columns are missing.
        ResumeError: If an earlier run had another recipe, and `fresh` is not set.
        LakestrataError: If the encoder cannot be loaded.
    """
    if recipe.source is None:
        raise ConfigurationError(["source: missing: this recipe brings embeddings, there is nothing to embed."])
    check_inputs(spark, recipe)
    store = Store(spark, recipe.work)
    source = open_source(spark, recipe)
    config = {"embed": semantic(recipe.embed), "source": _identity(recipe)}
    inputs = {source.name: source.version}
    current = begin(store, recipe.name, JOB, config, inputs, fresh=fresh, incremental=True)
    if current.finished:
        return current.finished
    return _embed(store, recipe, source, current)


def _identity(recipe: Recipe) -> dict[str, object]:
    """What makes two sources the same: not the columns that are only kept."""
    values: dict[str, object] = semantic(recipe.source)
    return {key: value for key, value in values.items() if key != "keep"}


def _embed(store: Store, recipe: Recipe, source: Input, current: Run) -> Result:
    keyed = split_by_key(source.rows)
    id_type = str(id_type_of(source.rows.schema["id"].dataType))
    table = store.table("embeddings")
    table.create(embeddings(id_type))
    reasons = ", ".join(map(repr, _KEY_REASONS))
    publish_aside(store, keyed.aside, keyed.n_aside, recipe.name, JOB, current, f"{_ASIDE} AND reason IN ({reasons})")
    spec = _encoder(store, recipe, keyed.rows, current)
    todo = keyed.rows
    if not table.read().isEmpty() or current.history:  # else there is nothing to forget and nothing done
        _forget_others(store, table, keyed.rows, spec.encoder_id)
        todo = _todo(store, table, keyed.rows)
    n_todo = todo.count()
    _embed_slices(store, recipe, todo, n_todo, spec, id_type, current)
    if source.has_changed():
        raise LakestrataError(f"{source.name}: its rows changed while they were embedded: run the job again.")
    return current.finish(
        rows_in=source.rows.count(),
        rows_out=table.read().count(),
        set_aside=count_aside(store.table(QUARANTINE.name), _ASIDE),
        outputs={table.name: f"version {table.version()}", "encoder_id": spec.encoder_id},
        metrics={"embedded_now": float(n_todo)},
    )


def _encoder(store: Store, recipe: Recipe, rows: DataFrame, current: Run) -> EncoderSpec:
    """The recipe's encoder: the one stored before, or one fitted now on a sample and stored."""
    options = recipe.embed
    table = store.table(ENCODERS.name)
    table.create(ENCODERS)
    wanted = sha256(json.dumps([options.encoder, options.params, options.seed]).encode()).hexdigest()[:16]
    found = table.read().where(F.col("recipe_hash") == wanted).orderBy("encoder_id").limit(1).collect()
    if found:
        row = found[0]
        state = bytes(row["state"]) if row["state"] is not None else None
        return EncoderSpec(row["name"], json.loads(row["params"]), state, row["revision"])
    spec = fit(options.encoder, options.params, _fit_sample(recipe, rows), options.seed)
    stored = (spec.encoder_id, wanted, spec.name, json.dumps(spec.params), spec.revision, spec.state)
    table.append(store.spark.createDataFrame([stored], ENCODERS.schema), current.commit("encoder"))
    return spec


def _fit_sample(recipe: Recipe, rows: DataFrame) -> list[object]:
    """Up to 1,000 items that decode, of the smallest hashes; those of a text encoder do not matter."""
    kind = recipe.source.kind if recipe.source else "image"
    if recipe.embed.encoder != "convolution":
        return []
    drawn = rows.select("id", "content").orderBy(F.xxhash64("id", F.lit(recipe.embed.seed)), "id")
    items: list[object] = []
    for row in drawn.limit(_FIT_SAMPLE).toLocalIterator():
        try:
            items.append(decode(row["content"], kind))
        except ItemError as error:
            logger.debug("%s is left out of the fit: %s", row["id"], error)
    if not items:
        raise LakestrataError(f"source.content: none of the {_FIT_SAMPLE} items tried can be decoded.")
    return items


def _forget_others(store: Store, table: DeltaTable, rows: DataFrame, encoder_id: str) -> None:
    """Remove embeddings of other encoders, and embedded or quarantined items that the source has no more."""
    now = rows.select("id", "content_hash")
    gone = table.read().join(now, ["id", "content_hash"], "left_anti").select("id")
    other = table.read().where(F.col("encoder_id") != encoder_id).select("id")
    stale = gone.union(other).distinct()
    if not stale.isEmpty():
        table.remove(stale, ("id",))
    aside = store.table(QUARANTINE.name)
    texts = now.select(F.col("id").cast("string").alias("id"), "content_hash")
    stale = _tried(aside).join(texts, ["id", "content_hash"], "left_anti").select(*QUARANTINE.key)
    if not stale.isEmpty():
        aside.remove(stale, QUARANTINE.key)


def _tried(quarantine: DeltaTable) -> DataFrame:
    """Quarantined items that could not be embedded."""
    return quarantine.read().where(_ASIDE).where(~F.col("reason").isin(*_KEY_REASONS))


def _todo(store: Store, table: DeltaTable, rows: DataFrame) -> DataFrame:
    """Items neither embedded nor in quarantine with their present content."""
    id_type = rows.schema["id"].dataType
    tried = _tried(store.table(QUARANTINE.name)).select(F.col("id").cast(id_type).alias("id"), "content_hash")
    done = table.read().select("id", "content_hash")
    return rows.join(done, ["id", "content_hash"], "left_anti").join(tried, ["id", "content_hash"], "left_anti")


def _embed_slices(
    store: Store, recipe: Recipe, todo: DataFrame, n_todo: int, spec: EncoderSpec, id_type: str, current: Run
) -> None:
    """Embed slice by slice: each is staged in one pass, then published; what is published stays."""
    options = recipe.embed
    kind = recipe.source.kind if recipe.source else spec.kind
    embed = embed_column(
        spec,
        kind,
        device=options.device,
        batch_size=options.batch_size,
        unit_length=options.normalize == "l2",
    )
    stage = store.table(staged(id_type).name)
    stage.create(staged(id_type))
    attempt = uuid4().hex  # a resumed run cuts what is left into other slices
    n_slices = ceil(n_todo / options.rows_per_commit)
    for i in range(n_slices):
        part = todo.where(F.expr(f"pmod(xxhash64(id), {n_slices}) = {i}"))
        done = part.select("id", "content_hash", embed(F.col("content")).alias("e"))
        rows = done.select(F.lit(current.run_id).alias("run_id"), "id", "content_hash", "e.*")
        step = f"slice-{i + 1}-{attempt}"
        with small_batches(store.spark, options.batch_size):
            stage.replace(rows, "true", current.commit(step))
        _publish(store, stage.read(stage.version()), spec.encoder_id, recipe.name, current, step)
        logger.info("embed slice %d of %d", i + 1, n_slices)
    stage.delete("true")


def _publish(store: Store, rows: DataFrame, encoder_id: str, name: str, current: Run, step: str) -> None:
    good = rows.where("reason IS NULL").select("id", "embedding", "content_hash", F.lit(encoder_id).alias("encoder_id"))
    store.table("embeddings").append(good, current.commit(step))
    bad = rows.where("reason IS NOT NULL").withColumn("id", F.col("id").cast("string"))
    if not bad.isEmpty():
        store.table(QUARANTINE.name).append(quarantine_rows(bad, name, JOB), current.commit(step))
