#!/usr/bin/env bash
# Runs cargo with a toolchain that builds guests for wasm32-unknown-unknown, with all of std:
#
#   operators/guest/toolchain.sh build --release            in a guest's folder: `cargo build --release --target wasm32-unknown-unknown`
#   operators/guest/toolchain.sh --version                  what would be used, in one line
#
# On your own machine `rustup target add wasm32-unknown-unknown` is all it takes, and this script then only calls cargo.
# Where rustup has no such target and cannot get it, Debian's own Rust is unpacked (not installed) into a folder below
# ~/.cache, std is built from Debian's copy of its source, and the linker is LLVM's, as rustup ships it with Rust itself.
# About 150 MB are fetched, once; another release of Debian's packages goes into another folder.
#
# LOGMILL_WASM_TOOLCHAIN=debian|rustup chooses one of the two.
set -euo pipefail

target=wasm32-unknown-unknown
packages=(rustc-web cargo-web rust-web-src)
say() { printf 'wasm toolchain: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

choice=${LOGMILL_WASM_TOOLCHAIN:-}
if [ -z "$choice" ]; then
  choice=debian
  if [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; then choice=rustup; fi
fi

if [ "$choice" = rustup ]; then
  if [ "${1:-}" = --version ]; then exec rustc --version; fi
  exec cargo "$@" --target "$target"
fi

# The newest release that was unpacked, or the one that Debian has now.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/logmill-wasm-toolchain
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
prefix=$(find "$cache" -mindepth 2 -maxdepth 2 -name ready -printf '%h\n' | sort --version-sort | tail -1)

if [ -z "$prefix" ]; then
  command -v apt-get >/dev/null ||
    fail "this machine has no apt-get; run 'rustup target add $target' instead"
  release() { apt-cache policy rustc-web 2>/dev/null | sed -n 's/^ *Candidate: //p'; }
  version=$(release)
  if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    say "asking Debian what it has"
    apt-get update -qq || sudo -n apt-get update -qq || fail "'apt-get update' failed; run 'rustup target add $target' instead"
    version=$(release)
  fi
  if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    fail "Debian has no package rustc-web here; run 'rustup target add $target' instead"
  fi

  # What is not on this machine of what they need, as apt works it out.
  mapfile -t needed < <(apt-get install --print-uris -qq -y --no-install-recommends "${packages[@]}" |
    sed -n "s/^'[^']*' \([^_]*\)_\([^_]*\)_.*/\1/p")
  for package in "${packages[@]}"; do
    case " ${needed[*]} " in *" $package "*) ;; *) needed+=("$package") ;; esac
  done
  say "fetching ${needed[*]} (rustc-web $version)"
  prefix=$cache/$version
  rm -rf "$prefix" && mkdir -p "$prefix/packages"
  (cd "$prefix/packages" && apt-get download -qq "${needed[@]}" 2>&1 | grep -v unsandboxed || true)
  for package in "${needed[@]}"; do
    found=("$prefix/packages/$package"_*.deb)
    [ -f "${found[0]}" ] || fail "$package could not be fetched"
    dpkg -x "${found[0]}" "$prefix"
  done
  rm -rf "$prefix/packages" "$prefix/usr/share/doc" "$prefix/usr/share/man"
  touch "$prefix/ready"
  say "unpacked to $prefix"
fi
flock -u 9

export LD_LIBRARY_PATH="$prefix/usr/lib/$(uname -m)-linux-gnu:$prefix/usr/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export RUSTC="$prefix/usr/bin/rustc"
if [ "${1:-}" = --version ]; then exec "$RUSTC" --version; fi

linker=$(find "$(rustup run stable rustc --print sysroot 2>/dev/null || env -u RUSTC rustc --print sysroot)/lib/rustlib" \
  -path '*/bin/rust-lld' 2>/dev/null | head -1)
[ -n "$linker" ] || linker=$(command -v wasm-ld || command -v lld || true)
[ -n "$linker" ] || fail "there is no rust-lld in rustup's toolchain, nor another wasm-ld on the PATH"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
# `-Z build-std` is not stable; the guests themselves use nothing that is not.
export RUSTC_BOOTSTRAP=1
unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER
exec "$prefix/usr/bin/cargo" "$@" -Z build-std=std,panic_abort --target "$target"
