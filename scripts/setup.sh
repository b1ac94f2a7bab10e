# SPDX-License-Identifier: Apache-2.0
# Sourced by scripts/demo and scripts/test: `need` checks for a command and
# installs it from the system's packages on Debian and Ubuntu; elsewhere it says
# what is missing and how to get it.

rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { printf '\n== %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

can_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }

# Package lists may be missing or old.
apt_updated=
apt_update() {
    [ -n "$apt_updated" ] || as_root apt-get update -qq || return 1
    apt_updated=yes
}

# False, with a word on what to do, where this system or this user can't.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        echo "missing: $*. Install it with your system's package manager and run this again." >&2
        return 1
    elif ! can_be_root; then
        echo "missing: $*. Run this again after, as root: apt-get install $*" >&2
        return 1
    fi
    say "installing $*"
    apt_update || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE...
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || apt_install "$@"
}

# at_least WANTED FOUND: compares versions.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# True if the Rust at hand is as new as Cargo.toml wants it.
rust_is_new_enough() {
    command -v cargo >/dev/null && at_least "$rust_needed" "$(rustc --version 2>/dev/null | cut -d' ' -f2)"
}

# Installs the newest Rust that the system packages, if it is new enough: rustc,
# or a newer one beside it (rustc-web on Debian, rustc-1.89 on Ubuntu).
apt_install_rust() {
    { command -v apt-cache >/dev/null && can_be_root && apt_update; } || return 1
    local package found newest=0 best=
    for package in $(apt-cache search --names-only '^rustc(-web|-[0-9.]+)?$' | cut -d' ' -f1); do
        found=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: \([0-9.]*[0-9]\).*/\1/p')
        if [ -n "$found" ] && at_least "$newest" "$found"; then
            newest=$found best=$package
        fi
    done
    at_least "$rust_needed" "$newest" || return 1
    # Cargo fetches over https, but the package does not ask for what that takes.
    apt_install "$best" "cargo${best#rustc}" ca-certificates || return 1
    PATH=/usr/lib/rust${best#rustc}/bin:$PATH
    hash -r
    rust_is_new_enough
}

need_rust() {
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    rust_is_new_enough && return
    if ! command -v rustup >/dev/null && apt_install_rust; then
        return
    fi
    say "installing Rust $rust_needed or newer, with rustup"
    if ! command -v rustup >/dev/null; then
        # Newer systems package rustup; for the others there is its installer.
        apt_install rustup 2>/dev/null || {
            need curl curl ca-certificates
            curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
            . "$HOME/.cargo/env"
        }
    fi
    rustup toolchain install stable --profile minimal --component clippy --component rustfmt
    rustup default stable
    if ! rust_is_new_enough; then
        echo "missing: Rust $rust_needed or newer. See https://www.rust-lang.org/tools/install" >&2
        exit 1
    fi
}

# A JDK of Java 17 or newer, and Maven.
need_java() {
    if ! java_is_new_enough; then
        # Newer systems have dropped 17 for what is their default.
        apt_install openjdk-17-jdk-headless 2>/dev/null || apt_install default-jdk-headless
    fi
    need mvn maven
    if ! java_is_new_enough; then
        echo "missing: a JDK of Java 17 or newer as the javac in PATH, or in JAVA_HOME" >&2
        exit 1
    fi
}

java_is_new_enough() { [ "$(java_version "${JAVA_HOME:+$JAVA_HOME/bin/}javac")" -ge 17 ]; }

# java_version JAVAC: the 17 of "javac 17.0.2"; 0 where there is none.
java_version() {
    local found
    found=$("$1" -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
    echo "${found:-0}"
}

# Prints where a JDK of Java 22 or newer is, if there is one.
find_jdk22() {
    local home
    for home in "${JAVA_HOME:-/nonexistent}" /usr/lib/jvm/*; do
        if [ -x "$home/bin/javac" ] && [ "$(java_version "$home/bin/javac")" -ge 22 ]; then
            echo "$home"
            return
        fi
    done
}

go_needed=1.22

# True if the Go at hand is as new as bindings/go/go.mod wants it.
go_is_new_enough() {
    command -v go >/dev/null || return 1
    local found
    found=$(go env GOVERSION 2>/dev/null)
    at_least "$go_needed" "${found#go}"
}

# The newest Go that the system's packages have: golang-1.23-go, or nothing.
packaged_go() {
    { command -v apt-cache >/dev/null && can_be_root && apt_update; } || return 0
    apt-cache search --names-only '^golang-1\.[0-9]+-go$' | cut -d' ' -f1 | sort -V | tail -n 1
}

need_go() {
    local folder package version
    for folder in /usr/local/go/bin "$PWD/build/go-sdk/go/bin" $(printf '%s\n' /usr/lib/go-*/bin | sort -Vr); do
        go_is_new_enough && return
        [ -x "$folder/go" ] && PATH=$folder:$PATH
    done
    go_is_new_enough && return
    say "installing Go $go_needed or newer"
    package=$(packaged_go)
    if at_least "golang-$go_needed-go" "$package" && apt_install "$package"; then
        version=${package#golang-}
        PATH=/usr/lib/go-${version%-go}/bin:$PATH
    elif [ "$(uname -s)" = Linux ] && need curl curl ca-certificates && version=$(curl -sSf 'https://go.dev/VERSION?m=text' | head -n 1); then
        # Older systems package an older one; this is what https://go.dev/doc/install has.
        mkdir -p build/go-sdk
        case $(uname -m) in
        x86_64) package=amd64 ;;
        aarch64) package=arm64 ;;
        *) package=$(uname -m) ;;
        esac
        curl -sSfL "https://go.dev/dl/$version.linux-$package.tar.gz" | tar -xz -C build/go-sdk
        PATH=$PWD/build/go-sdk/go/bin:$PATH
    fi
    if ! go_is_new_enough; then
        echo "missing: Go $go_needed or newer. See https://go.dev/doc/install" >&2
        exit 1
    fi
}
