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
# Clients in Python have an environment of their own: they want other versions of what the workspace has.
if command -v uv >/dev/null; then
  uv venv --quiet --allow-existing .venv && uv pip install --quiet --python .venv/bin/python -r requirements.txt
else
  python3 -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
fi
