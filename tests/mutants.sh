#!/usr/bin/env bash
# Mutation tests of the pure files: what decides, without a network, a database or a clock. Each change that cargo-mutants makes to
# one of them has to fail a test of its own crate; at least 95 of 100 do, in each file and in all together.
#
#   tests/mutants.sh                        all of them, about two hours on two cores
#   tests/mutants.sh dataflow/core/src/retry.rs operators/src/recrawl.rs
#
# It changes the sources in place, one by one, so it works on a clone of the last commit under the target folder.
set -euo pipefail
cd "$(dirname "$0")/.."
least=95
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
PATH="$target/tools/bin:$PATH" && export PATH
command -v cargo-mutants >/dev/null || cargo install --locked --quiet --root "$target/tools" cargo-mutants@27.1.0

# The crate of each file, and which of its tests are about it: the fewest that suffice.
files=(
    "faceflow-core dataflow/core/src/retry.rs retry::"
    "faceflow-core dataflow/core/src/ledger.rs ledger::"
    "faceflow-operators operators/src/web/guard.rs web::"
    "faceflow-operators operators/src/web/rules.rs web::rules::"
    "faceflow-operators operators/src/clusters.rs clusters::"
    "faceflow-operators operators/src/recrawl.rs recrawl::"
    "faceflow-operators operators/src/admit.rs admit::"
    "faceflow-operators operators/src/frontier.rs frontier::"
    "faceflow-engine operators/engine/src/postprocess.rs postprocess::"
    "faceflow-sinks sinks/src/ledger/settle.rs ledger::"
)

clone="$target/mutants"
if [ -d "$clone/.git" ]; then
    git -C "$clone" fetch -q origin && git -C "$clone" reset -q --hard
else
    git clone -q . "$clone"
fi
git -C "$clone" checkout -q "$(git rev-parse HEAD)"

caught_in_all=0 missed_in_all=0 low=()
for line in "${files[@]}"; do
    read -r crate file tests <<<"$line"
    [ $# -eq 0 ] || [[ " $* " == *" $file "* ]] || continue
    # It fails where a mutant is missed; what counts is counted below.
    (cd "$clone" && CARGO_TARGET_DIR="$clone/target" nice -n 10 cargo mutants --in-place --package "$crate" --file "$file" \
        --output "$clone/target" --timeout 120 --no-shuffle -- --lib "$tests") || [ $? -le 3 ] || exit 1
    out="$clone/target/mutants.out"
    caught=$(cat "$out/caught.txt" "$out/timeout.txt" | wc -l) missed=$(wc -l <"$out/missed.txt")
    cat "$out/missed.txt"
    printf '== %s: %d caught, %d missed\n' "$file" "$caught" "$missed"
    [ $((caught * 100)) -ge $(((caught + missed) * least)) ] || low+=("$file")
    caught_in_all=$((caught_in_all + caught)) missed_in_all=$((missed_in_all + missed))
done
printf '== in all: %d caught, %d missed\n' "$caught_in_all" "$missed_in_all"
[ ${#low[@]} -eq 0 ] || { printf 'fewer than %d of 100 are caught: %s\n' "$least" "${low[*]}" >&2 && exit 1; }
