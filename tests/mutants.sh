#!/usr/bin/env bash
# Mutation tests of the pure files: what decides, without a network, a database or a clock. Each change that cargo-mutants makes to
# one of them has to fail a test beside it; at least 95 of 100 do, in each file.
#
#   tests/mutants.sh                        all of them, about an hour on two cores
#   tests/mutants.sh dataflow/core/src/retry_policy.rs operators/src/recrawl.rs
#
# It changes sources in place, one by one, so it works on a clone of the last commit under the target folder. Files of large crates
# are put into a crate that holds nothing else, which is built and tested within seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
least=95
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
PATH="$target/tools/bin:$PATH" && export PATH
command -v cargo-mutants >/dev/null || cargo install --locked --quiet --root "$target/tools" cargo-mutants@27.1.0

# Where a file is tested: its crate, or which modules of a folder the small crate needs. Then the tests that are about it.
files=(
    "faceflow-core dataflow/core/src/retry_policy.rs retry_policy::"
    "faceflow-core dataflow/core/src/retry_policy/host.rs retry_policy::"
    "faceflow-core dataflow/core/src/retry_policy/policy.rs retry_policy::"
    "faceflow-core dataflow/core/src/transition.rs transition::"
    "faceflow-core dataflow/core/src/tally.rs tally::"
    "operators/src:recrawl operators/src/recrawl.rs recrawl::"
    "operators/src:recrawl,jobs,select_links operators/src/select_links.rs select_links::"
    "operators/src:recrawl,jobs,select_links,source_set,dispatch operators/src/dispatch/queues.rs dispatch::"
    "operators/src:recrawl,jobs,select_links,source_set,dispatch operators/src/dispatch/queue_scheduler.rs dispatch::"
    "operators/src:recrawl,jobs,select_links,source_set,dispatch operators/src/dispatch/tenant_shares.rs dispatch::"
    "faceflow-duplicates operators/duplicates/src/near.rs near::"
    "faceflow-duplicates operators/duplicates/src/leaders.rs near::"
    "faceflow-duplicates operators/duplicates/src/pictures.rs near::"
    "faceflow-duplicates operators/duplicates/src/index.rs index::"
    "faceflow-web operators/web/src/robots_rules.rs robots_rules::"
    "faceflow-web operators/web/src/ssrf_guard.rs ssrf_guard::"
    "faceflow-web operators/web/src/public_addresses.rs public_addresses::"
    "faceflow-engine operators/engine/src/postprocess.rs postprocess::"
    "faceflow-ledger sinks/ledger/src/apply_outcomes.rs facts::sqlite::"
)

# Changes that change nothing that could be seen, each with its reason.
equivalent=(
    # It takes 2^32 pictures to see this.
    'replace < with <= in Pictures::push'
    # No two pictures have the same rank, and what is decided again in its own place changes nothing.
    'replace < with <= in Pictures::before'
    # The bits of both sides are apart, so that "or" and "exclusive or" are the same.
    'replace | with ^ in HammingIndex::insert'
    'replace | with ^ in bucket'
)

clone="$target/mutants"
[ -d "$clone/.git" ] || git clone -q . "$clone"
git -C "$clone" fetch -q origin HEAD && git -C "$clone" reset -q --hard FETCH_HEAD
export CARGO_TARGET_DIR="$clone/target"
# The clone lies elsewhere, and tests that find no test data catch nothing.
export FACEFLOW_TESTDATA="${FACEFLOW_TESTDATA:-$(realpath -m ../shared)}"

# A crate of these modules, which lie beside each other.
small_crate() {
    local small="$clone/small" folder="$1" modules="$2" module
    rm -rf "$small" && mkdir -p "$small/src"
    cat >"$small/Cargo.toml" <<'EOF'
[package]
name = "small"
version = "0.0.0"
edition = "2024"
[dependencies]
bytes.workspace = true
encoding_rs.workspace = true
faceflow-core = { workspace = true, features = ["testing"] }
faceflow-duplicates.workspace = true
faceflow-mine.workspace = true
faceflow-pixels.workspace = true
futures.workspace = true
proptest.workspace = true
robotxt.workspace = true
serde.workspace = true
timely.workspace = true
tokio = { workspace = true, features = ["test-util"] }
tracing.workspace = true
url.workspace = true
EOF
    echo '#![allow(dead_code)]' >"$small/src/lib.rs"
    for module in ${modules//,/ }; do
        cp -r "$clone/$folder/$module" "$small/src/" 2>/dev/null || true
        # Measurements need what is not here.
        grep -v 'mod measure;' "$clone/$folder/$module.rs" >"$small/src/$module.rs"
        echo "pub mod $module;" >>"$small/src/lib.rs"
    done
    grep -q '"small"' "$clone/Cargo.toml" || sed -i 's|^members = \[|members = ["small", |' "$clone/Cargo.toml"
}

low=() exclude=()
for mutant in "${equivalent[@]}"; do exclude+=(--exclude-re "$(sed 's/[].*^$+?(){}|\\[]/\\&/g' <<<"$mutant")"); done
for line in "${files[@]}"; do
    read -r where file tests <<<"$line"
    [ $# -eq 0 ] || [[ " $* " == *" $file "* ]] || continue
    crate="$where" mutated="$file"
    if [[ "$where" != faceflow-* ]]; then
        small_crate "${where%%:*}" "${where#*:}"
        crate=small mutated="small/src/${file#"${where%%:*}"/}"
    fi
    # Exit statuses 2 and 3 say that a mutant was missed, or hung; what counts is counted below.
    (cd "$clone" && nice -n 10 cargo mutants --in-place --package "$crate" --file "$mutated" --output "$clone/target" \
        --timeout 120 --no-shuffle "${exclude[@]}" -- --lib "$tests") || [ $? -le 3 ]
    out="$clone/target/mutants.out"
    caught=$(cat "$out/caught.txt" "$out/timeout.txt" | wc -l) missed=$(wc -l <"$out/missed.txt")
    cat "$out/missed.txt"
    printf '== %s: %d caught, %d missed\n' "$file" "$caught" "$missed"
    [ $((caught * 100)) -ge $(((caught + missed) * least)) ] || low+=("$file")
    git -C "$clone" reset -q --hard
done
[ ${#low[@]} -eq 0 ] || { printf 'fewer than %d of 100 are caught: %s\n' "$least" "${low[*]}" >&2 && exit 1; }
