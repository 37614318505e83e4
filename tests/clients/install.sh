#!/bin/sh
# Installs the stock clients of tests/clients, and Node.js where it is missing and can be had. Tests whose client is
# missing are skipped and say so.
cd "$(dirname "$0")" || exit 1
if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm
fi
command -v npm >/dev/null || { echo "not installed here: npm" >&2; exit 0; }
npm install --no-package-lock --no-audit --no-fund --loglevel=error
