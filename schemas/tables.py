"""Every table, declared once: columns, key, constraints, properties.

The same declaration is the writer's contract (`Table.ddl`), the schema of frames made in tests (`Table.schema`) and the
documentation a catalog shows (comments).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

ID_TYPES = {"bigint": LongType(), "string": StringType()}
_COUNTS = MapType(StringType(), LongType())
_TEXTS = MapType(StringType(), StringType())


@dataclass(frozen=True)
class Table:
    """A table's declaration.

    Attributes:
        name: Its name under `work`.
        comment: What one row is.
        schema: Columns with types, nullability and comments.
        key: Columns that identify a row.
        constraints: CHECK constraints by name, set when the table is created.
    """

    name: str
    comment: str
    schema: StructType
    key: tuple[str, ...]
    constraints: dict[str, str] = field(default_factory=dict)

    def ddl(self, identifier: str) -> str:
        """The CREATE TABLE statement for a quoted identifier."""
        columns = ",\n  ".join(column_ddl(column) for column in self.schema.fields)
        properties = {f"delta.constraints.{name}": check for name, check in self.constraints.items()}
        pairs = ", ".join(f"{_quoted(key)} = {_quoted(value)}" for key, value in properties.items())
        tail = f" TBLPROPERTIES ({pairs})" if pairs else ""
        return (
            f"CREATE TABLE IF NOT EXISTS {identifier} (\n  {columns}\n) USING DELTA "
            f"COMMENT {_quoted(self.comment)}{tail}"
        )


def column_ddl(column: StructField) -> str:
    """A column as SQL: name, type, nullability, comment."""
    null = "" if column.nullable else " NOT NULL"
    comment = column.metadata["comment"]
    return f"`{column.name}` {column.dataType.simpleString()}{null} COMMENT {_quoted(comment)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _column(name: str, kind: DataType, comment: str, *, null: bool = False) -> StructField:
    return StructField(name, kind, null, {"comment": comment})


def _levels(n_levels: int) -> list[StructField]:
    # Trees of other heights may share the table, so only level 1 is sure to be there.
    return [
        _column(f"level_{t}", LongType(), f"Cluster of the item at level {t}", null=t > 1)
        for t in range(1, n_levels + 1)
    ]


def embeddings(id_type: str) -> Table:
    """Embedded items; `id_type` is "bigint" or "string"."""
    columns = [
        _column("id", ID_TYPES[id_type], "The item's key in the source"),
        _column("embedding", ArrayType(FloatType()), "What the encoder made of the content"),
        _column("content_hash", StringType(), "SHA-256 of the content, hexadecimal"),
        _column("encoder_id", StringType(), "The encoder, as in encoders"),
    ]
    checks = {"embedding_not_empty": "size(embedding) > 0"}
    return Table("embeddings", "An embedded item", StructType(columns), ("id",), checks)


IMPORTED = Table(
    "imported",
    "A vector of an imported file",
    StructType(
        [
            _column("id", LongType(), "Row number in the file"),
            _column("embedding", ArrayType(FloatType()), "The vector"),
        ]
    ),
    ("id",),
)

DIGITS = Table(
    "digits",
    "A handwritten digit of the demo",
    StructType(
        [
            _column("id", LongType(), "Row number in scikit-learn's set"),
            _column("image", BinaryType(), "PNG"),
            _column("digit", LongType(), "The label; no job looks at it"),
        ]
    ),
    ("id",),
)

ENCODERS = Table(
    "encoders",
    "A fitted or loaded encoder",
    StructType(
        [
            _column("encoder_id", StringType(), "Hash of all that follows"),
            _column("recipe_hash", StringType(), "Hash of the recipe's part that asked for it"),
            _column("name", StringType(), "convolution, or a model's name or folder"),
            _column("params", StringType(), "Parameters, JSON"),
            _column("revision", StringType(), "Version of trained weights, or null", null=True),
            _column("state", BinaryType(), "What was fitted (.npz), or null", null=True),
        ]
    ),
    ("encoder_id",),
)

QUARANTINE = Table(
    "quarantine",
    "An item set aside",
    StructType(
        [
            _column("id", StringType(), "The item's key, as text; null where it has none", null=True),
            _column("content_hash", StringType(), "Hash of the content set aside", null=True),
            _column("name", StringType(), "The recipe's name"),
            _column("job", StringType(), "The job that set it aside"),
            _column("reason", StringType(), "A short code"),
            _column("detail", StringType(), "What was wrong", null=True),
            _column("at", TimestampType(), "When"),
        ]
    ),
    ("name", "job", "id", "content_hash"),
)

CENTROIDS = Table(
    "centroids",
    "A node of the tree",
    StructType(
        [
            _column("model_id", StringType(), "The tree"),
            _column("level", IntegerType(), "1 at the bottom"),
            _column("cluster_id", LongType(), "0 .. k-1 in its level"),
            _column("parent_id", LongType(), "cluster_id in the level above; null at the top", null=True),
            _column("centroid", ArrayType(FloatType()), "Coordinates"),
            _column("children", LongType(), "Items (level 1) or clusters below; 0 only where made in two steps"),
            _column("items", LongType(), "Items below it"),
            _column("radius", DoubleType(), "Root mean square distance of its children"),
        ]
    ),
    ("model_id", "level", "cluster_id"),
    {"children_not_negative": "children >= 0", "radius_not_negative": "radius >= 0"},
)

CHECKPOINTS = Table(
    "checkpoints",
    "A centroid of a tree in the making",
    StructType(
        [
            _column("run_id", StringType(), "The run that made it"),
            _column("level", IntegerType(), "1 at the bottom"),
            _column("round", IntegerType(), "Resampling round; -1 for those of the finished level"),
            _column("state", StringType(), "Where the round's fit stood, JSON; null at its end", null=True),
            _column("part", IntegerType(), "Number of the commit; a later one takes the place of an earlier"),
            _column("grp", LongType(), "Group of a level made in two steps", null=True),
            _column("cluster_id", LongType(), "0 .. k-1"),
            _column("centroid", ArrayType(FloatType()), "Coordinates in grid steps"),
        ]
    ),
    ("run_id", "level", "round", "part", "cluster_id"),
)


def staged(id_type: str) -> Table:
    """Embedded and broken items of one slice, before they are published to their tables."""
    columns = [
        _column("run_id", StringType(), "The run"),
        _column("id", ID_TYPES[id_type], "The item's key"),
        _column("content_hash", StringType(), "SHA-256 of the content"),
        _column("embedding", ArrayType(FloatType()), "The embedding, or null", null=True),
        _column("reason", StringType(), "Why there is none, or null", null=True),
        _column("detail", StringType(), "What was wrong, or null", null=True),
    ]
    return Table(
        f"staged_{id_type}",
        "An item between embedding and publication",
        StructType(columns),
        ("run_id", "id"),
    )


def scratch(id_type: str) -> Table:
    """Packed blocks of runs in progress, where the session has no cache."""
    columns = [
        _column("owner", StringType(), "Name of the recipe whose run reads them"),
        _column("name", StringType(), "Which of its blocks"),
        _column("ids", ArrayType(ID_TYPES[id_type]), "Ids of the points"),
        _column("hashes", BinaryType(), "Hashes of the ids, uint64"),
        _column("a", BinaryType(), "Vectors, float32"),
        _column("norms", BinaryType(), "Squared norms, float64"),
        _column("class", IntegerType(), "Batch class of the points"),
        _column("n", IntegerType(), "How many they are"),
        _column("largest", DoubleType(), "Largest absolute coordinate of raw vectors"),
        _column("reason", StringType(), "Why the rows are unusable; null for points", null=True),
    ]
    return Table(f"scratch_{id_type}", "A packed block of a run in progress", StructType(columns), ("owner", "name"))


def assignments(id_type: str, n_levels: int) -> Table:
    """Items in the tree, with their cluster at each of `n_levels` levels."""
    columns = [
        _column("model_id", StringType(), "The tree"),
        _column("id", ID_TYPES[id_type], "The item's key"),
        *_levels(n_levels),
        _column("distance", DoubleType(), "L2 distance to the level-1 centroid, not squared"),
    ]
    checks = {"distance_not_negative": "distance >= 0"}
    return Table("assignments", "An item in the tree", StructType(columns), ("model_id", "id"), checks)


def curated(id_type: str, n_levels: int, kept: list[StructField]) -> Table:
    """Chosen items, with the `kept` columns of the source."""
    columns = [
        _column("model_id", StringType(), "The tree"),
        _column("id", ID_TYPES[id_type], "The item's key"),
        *_levels(n_levels),
        _column("copies", LongType(), "How often to use the item"),
        _column("inclusion_probability", DoubleType(), "Of the item; null for closest", null=True),
        _column("weight", DoubleType(), "1 / expected copies; null for closest", null=True),
        *(_column(c.name, c.dataType, c.metadata.get("comment", "From the source"), null=True) for c in kept),
    ]
    checks = {
        "copies_positive": "copies > 0",
        "probability": "inclusion_probability IS NULL OR (inclusion_probability > 0 AND inclusion_probability <= 1)",
    }
    return Table("curated", "An item chosen", StructType(columns), ("model_id", "id"), checks)


QUOTAS = Table(
    "quotas",
    "A cluster's share in one curated set",
    StructType(
        [
            _column("model_id", StringType(), "The tree"),
            _column("level", IntegerType(), "1 at the bottom"),
            _column("cluster_id", LongType(), "0 .. k-1 in its level"),
            _column("items", LongType(), "Items below it"),
            _column("quota", LongType(), "Copies to take from it"),
            _column("expected_quota", DoubleType(), "Mean of the quota over all seeds"),
            _column("reason", StringType(), "share: its share; all: it gives all it can; outlier: left out"),
        ]
    ),
    ("model_id", "level", "cluster_id"),
    {"quota_not_negative": "quota >= 0"},
)

EVALUATION = Table(
    "evaluation",
    "A figure of a curated set, beside those of random sets of its size",
    StructType(
        [
            _column("model_id", StringType(), "The tree"),
            _column("figure", StringType(), "What it measures"),
            _column("curated", DoubleType(), "Of the curated set"),
            _column("random_mean", DoubleType(), "Mean over the random sets"),
            _column("random_sd", DoubleType(), "Standard deviation over the random sets"),
            _column("draws", IntegerType(), "Random sets"),
            _column("oracle", DoubleType(), "Of a set that is even over the classes", null=True),
            _column("gain", DoubleType(), "Share of the way from random sets to the even one", null=True),
            _column("outcome", StringType(), "better, worse or as random (within two standard deviations)"),
        ]
    ),
    ("model_id", "figure"),
)

RUNS = Table(
    "runs",
    "A job's run",
    StructType(
        [
            _column("run_id", StringType(), "The run"),
            _column("name", StringType(), "The recipe's name"),
            _column("job", StringType(), "embed, cluster, sample or evaluate"),
            _column("status", StringType(), "started or finished"),
            _column("started", TimestampType(), "When it began"),
            _column("finished", TimestampType(), "When it ended", null=True),
            _column("config", StringType(), "The recipe's semantic keys, JSON"),
            _column("config_hash", StringType(), "Hash of those and of algorithm_version"),
            _column("algorithm_version", IntegerType(), "Grows when the same recipe gives other results"),
            _column("package_version", StringType(), "Of lakestrata"),
            _column("inputs", _TEXTS, "Input tables and the versions read"),
            _column("outputs", _TEXTS, "Output tables and the versions written"),
            _column("rows_in", LongType(), "Rows read", null=True),
            _column("rows_out", LongType(), "Rows that came through", null=True),
            _column("set_aside", _COUNTS, "Rows that did not, by reason"),
            _column("metrics", MapType(StringType(), DoubleType()), "Figures of the run"),
        ]
    ),
    ("run_id",),
    {"status_known": "status IN ('started', 'finished')"},
)
