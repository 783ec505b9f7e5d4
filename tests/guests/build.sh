#!/usr/bin/env bash
# Builds the guests of the tests and of example 02 from source.
#
#   tests/guests/build.sh            compares them with the committed modules; fails if they differ
#   tests/guests/build.sh --write    replaces the committed modules by them
#
# A module depends on the compiler's release, which BUILT_WITH names. Where another is at hand, the modules are replaced for the
# tests that follow, and that is said.
#
# They are built in a folder into which their sources are copied, so that no path of this checkout gets into a module.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}
mode=${1:-check}
say() { printf '%s\n' "$*"; }

toolchain=$root/operators/guest/toolchain.sh
with=$("$toolchain" --version)

# The sources, as in the repository but in a workspace of their own.
source=${LOGMILL_GUESTS_DIR:-$cache/logmill-guests}
mkdir -p "$source"
exec 8>"$source/lock"
flock 8
rm -rf "$source/operators" "$source/tests" "$source/examples"
for folder in operators/guest operators/wit tests/guests examples/02-wasm-transform/guests; do
  [ -d "$root/$folder" ] || continue
  mkdir -p "$source/$folder"
  (cd "$root/$folder" && find . \( -name node_modules -o -name target -o -name built \) -prune -o -type f ! -name '*.wasm' -print0 |
    tar --null --files-from=- --create --file=-) | tar --extract --file=- --directory "$source/$folder"
done
mv "$source/tests/guests/workspace.toml" "$source/Cargo.toml"
if [ -f "$here/Cargo.lock" ]; then cp "$here/Cargo.lock" "$source/Cargo.lock"; locked=--locked; else locked=; fi

export CARGO_TARGET_DIR=$source/target CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
# ahash draws its constants when it is compiled.
export CONST_RANDOM_SEED=logmill
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="--remap-path-prefix=$source=/guests
  --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$cache/logmill-wasm-toolchain=/toolchain"

out=$source/out
rm -rf "$out" && mkdir -p "$out/tests/guests/built" "$out/examples/02-wasm-transform"
# build PACKAGE FEATURES TO: the module of a package goes to TO.
build() {
  (cd "$source" && "$toolchain" build --quiet --release $locked --package "$1" ${2:+--features "$2"})
  install --mode 644 "$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/${1//-/_}.wasm" "$out/$3"
  say "built $3, $(($(stat --format %s "$out/$3") / 1024)) KiB"
}

say "guests of Rust, with $with"
build copy "" tests/guests/built/copy.wasm
build records "" tests/guests/built/records.wasm
build identity "" tests/guests/built/identity.wasm
build splitter "" tests/guests/built/splitter.wasm
build functions "" tests/guests/built/functions.wasm
build tally "" tests/guests/built/tally.wasm
build tally v2 tests/guests/built/tally-v2.wasm
build tally v3 tests/guests/built/tally-v3.wasm
build hostile "" tests/guests/built/hostile.wasm
build hostile stateful tests/guests/built/hostile-stateful.wasm
build score "" examples/02-wasm-transform/score.wasm
build geo "" examples/02-wasm-transform/geo.wasm

say "a guest of AssemblyScript, with the compiler of its package-lock.json"
mask=examples/02-wasm-transform/guests/mask
(cd "$source/$mask" && npm ci --silent --no-audit --no-fund && npm run --silent build)
cp "$source/$mask/mask.wasm" "$out/examples/02-wasm-transform/mask.wasm"

cd "$out"
differ=()
while read -r module; do
  cmp --silent "$module" "$root/$module" || differ+=("$module")
done < <(find . -name '*.wasm' -printf '%P\n' | sort)

if [ "$mode" = --write ]; then
  for module in "${differ[@]}"; do
    mkdir -p "$(dirname "$root/$module")" && cp "$module" "$root/$module"
    say "wrote $module"
  done
  [ -n "$locked" ] || cp "$source/Cargo.lock" "$here/Cargo.lock"
  say "$with" > "$here/BUILT_WITH"
elif [ ${#differ[@]} -eq 0 ]; then
  say "all are equal to the committed ones"
elif [ "$with" != "$(cat "$here/BUILT_WITH")" ]; then
  say "the committed modules were built with $(cat "$here/BUILT_WITH"); those built now take their place: ${differ[*]}"
  for module in "${differ[@]}"; do cp "$module" "$root/$module"; done
else
  say "not equal to the committed modules: ${differ[*]}"
  say "if their sources have changed, write them with: tests/guests/build.sh --write"
  exit 1
fi
