#!/bin/sh
# Run the plans that tell what a strategy is worth with the real model, and publish each record as a file in docs/results.
# What is finished is not run again. Then the audit of capacity.
#
#   RECORDS=records PREFIX_BLOCKS=6 benchmarks/experiments/run-verdicts.sh [PLAN ...]
set -eu
cd "$(dirname "$0")/../.."
records=${RECORDS:-records}
failed=
finished=
mkdir -p "$records"
for plan in ${*:-llm-early-refusal llm-fairness llm-overload llm-prefix}; do
  blocks=
  test "$plan" != llm-prefix || blocks="--blocks ${PREFIX_BLOCKS:-6}"
  # shellcheck disable=SC2086 - no blocks are no argument
  anywire experiment run "benchmarks/experiments/$plan.yaml" --out "$records/$plan" $blocks || failed="$failed $plan"
  anywire experiment verify "$records/$plan" || { failed="$failed $plan"; continue; }
  finished="$finished $plan"
done
# Only now: a record tells whether the checkout was as its commit has it.
for plan in $finished; do
  anywire experiment publish "$records/$plan" --out docs/results
  sed -n '1,/^## Cells/p' "$records/$plan/report.md" | grep -E '^(- [▲▼≈?·]|\*\*)' || true
  sha256sum "docs/results/$plan.record"
done
if test $# -eq 0; then
  mkdir -p docs/results/capacity
  python benchmarks/capacity.py --out "$records/capacity.csv" >"$records/capacity.txt" || failed="$failed capacity"
  cat "$records/capacity.txt"
  cp "$records/capacity.csv" "$records/capacity.txt" docs/results/capacity/
fi
test -z "$failed" || { echo "not finished:$failed" >&2; exit 1; }
