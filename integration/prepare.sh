# Sourced by integration/demo and integration/test: what the machine needs, and the release build.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$here" || exit 1

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "network namespaces need root: sudo $0 $*"

# sudo drops the way to a toolchain in the caller's home.
if ! command -v cargo >/dev/null; then
  for home in "$HOME" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
    [ -x "$home/.cargo/bin/cargo" ] || continue
    export PATH="$home/.cargo/bin:$PATH" RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}" CARGO_HOME="${CARGO_HOME:-$home/.cargo}"
    break
  done
fi
command -v cargo >/dev/null || die "cargo is not there; install a Rust toolchain (https://rustup.rs)"

# command:package pairs; what is there is not asked for again.
needs="ip:iproute2 nft:nftables ping:iputils-ping tcpdump:tcpdump vtysh:frr birdc:bird2 modprobe:kmod cc:gcc"
[ -e /usr/lib/cni/ptp ] || [ -e /opt/cni/bin/ptp ] || needs="$needs ptp:containernetworking-plugins"

has_ipip() {
  modprobe -q ipip 2>/dev/null
  ip netns add "ocicat-try-$$" 2>/dev/null || return 1
  ip -n "ocicat-try-$$" link add try0 type ipip external 2>/dev/null
  local result=$?
  ip netns del "ocicat-try-$$"
  return $result
}

install_packages() {
  local missing=() pair
  export PATH="$PATH:/usr/sbin:/sbin"
  for pair in $needs; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  # A compiler comes without what programs are linked with.
  [ -e "$(cc -print-file-name=crti.o 2>/dev/null)" ] || missing+=(libc6-dev)
  has_ipip || command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "missing: ${missing[*]}, and there is no apt-get to install them with"
  echo "installing ${missing[*]}"
  # The routers run in namespaces of the lab; the system's own daemons stay off.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install ${missing[*]}; install them by hand and come back"
}

# The plugin is static where the musl target can be had.
build_release() {
  local target
  target="$(uname -m)-unknown-linux-musl"
  cargo build --quiet --release -p felix-rs -p bgp-speaker -p integration --bins || die "the build failed"
  if command -v rustup >/dev/null && rustup target add "$target" >/dev/null 2>&1; then
    cargo build --quiet --profile cni -p ocicat-cni --target "$target" || die "the build of the plugin failed"
  else
    echo "no musl target: the CNI plugin is linked dynamically"
    cargo build --quiet --profile cni -p ocicat-cni || die "the build of the plugin failed"
  fi
}

lab() { "${CARGO_TARGET_DIR:-$here/target}/release/lab" "$@"; }
