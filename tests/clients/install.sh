#!/bin/sh
# Installs the stock clients of tests/clients, and Node.js where it is missing and can be had. Tests whose client is
# missing are skipped and say so.
cd "$(dirname "$0")" || exit 1
if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm
fi
if command -v npm >/dev/null; then
  npm install --no-package-lock --no-audit --no-fund --loglevel=error
else
  echo "not installed here: npm" >&2
fi
# Clients in Python have environments of their own: they want other versions of what the workspace has, and of each other.
installed() { # FOLDER REQUIREMENTS
  if command -v uv >/dev/null; then
    uv venv --quiet --allow-existing "$1" && uv pip install --quiet --python "$1/bin/python" --requirement "$2"
  else
    python3 -m venv "$1" && "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$2"
  fi
}
installed .venv requirements.txt
installed .venv-llama-index requirements-llama-index.txt
