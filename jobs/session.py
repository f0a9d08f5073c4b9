"""The Spark session: the active one, or a local one tuned for small tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

from pyspark.sql import SparkSession

from ..schemas.errors import LakestrataError

# A local run has small tables: by default Delta reads a table's log with 50 tasks and a shuffle makes 200.
_LOCAL_CONFS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 1),
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.driver.memory": "2g",
    # The work is done in Python workers: a JVM that starts quickly beats one that peaks late.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=256m",
}

# Some thousand rows: compiling a query, or planning it anew halfway, takes longer than running it as it is.
_SMALL_CONFS = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.databricks.delta.stats.collect": "false",
}


def get_session(*, small: bool = False) -> SparkSession:
    """The active session, that of the platform, or a new local one.

    An active session is used as it is and never stopped. Under spark-submit, on Databricks and with a Spark Connect
    server the platform's settings stand. Otherwise a local session with Delta is made on all cores.

    Args:
        small: Whether a local session should be made for tables of some thousand rows.

    Raises:
        LakestrataError: If a local session cannot be started.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if _on_platform():
        return SparkSession.builder.appName("lakestrata").getOrCreate()
    return _local_session(_LOCAL_CONFS | _SMALL_CONFS if small else _LOCAL_CONFS)


def _on_platform() -> bool:
    """Whether somebody else configures Spark: spark-submit, Databricks, or a Connect server."""
    remote = os.environ.get("SPARK_REMOTE", "local")
    return (
        "PYSPARK_GATEWAY_PORT" in os.environ
        or "DATABRICKS_RUNTIME_VERSION" in os.environ
        or not remote.startswith("local")
    )


def _local_session(confs: Mapping[str, str]) -> SparkSession:
    from delta import configure_spark_with_delta_pip

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName("lakestrata")
    if "SPARK_REMOTE" not in os.environ:
        builder = builder.master("local[*]")
    for key, value in confs.items():
        builder = builder.config(key, value)
    try:
        with _jvm_log() as log:
            return configure_spark_with_delta_pip(builder).getOrCreate()
    except Exception as error:
        raise LakestrataError(
            f"Spark did not start: {' '.join(str(error).split())[:200]} Check that java (17 or newer) runs and that "
            f"Delta's jars can be fetched; {log} has the details."
        ) from error


@contextmanager
def _jvm_log() -> Iterator[str]:
    """Send what a JVM started meanwhile writes to standard error to a file: page-long notes on its jars and logs."""
    sys.stderr.flush()
    with NamedTemporaryFile(prefix="lakestrata-spark-", suffix=".log", delete=False) as log:
        before = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield log.name
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
