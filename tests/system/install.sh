#!/bin/sh
# Installs what tests/system needs, where that is possible: the Python packages of requirements.txt, with the command that
# is given as arguments, and Debian packages. Tests whose package or program is missing are skipped and say so.
while read -r requirement; do
  case $requirement in "" | "#"*) continue ;; esac
  # Each by itself: where one is not to be had, the others are.
  [ $# = 0 ] || "$@" "$requirement" </dev/null || echo "not installed here: $requirement" >&2
done <"$(dirname "$0")/requirements.txt"
packages=
for program in nginx caddy; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || packages="$packages $program"
done
# promtool, which looks at /metrics and at the rules of alerts.
command -v promtool >/dev/null || packages="$packages prometheus"
# The Cyclone DDS that has DDS Security: its headers, and the compiler that its Python package is built with.
[ -d /usr/include/ddsc ] || packages="$packages cyclonedds-dev"
command -v idlc >/dev/null || packages="$packages cyclonedds-tools"
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed here:$packages" >&2
  exit 0
fi
apt-get update -qq
for package in $packages; do
  # Each by itself: where one is not to be had, the others are.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" ||
    echo "not installed here: $package" >&2
done
