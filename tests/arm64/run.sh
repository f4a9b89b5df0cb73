#!/bin/bash
# The listener on another machine than this one: its tests, and a real soundscape whose events are held against this one's.
#
#     tests/arm64/run.sh                     # Debian 12 for 64-bit ARM (a Raspberry Pi's), emulated: make test-arm64
#     tests/arm64/run.sh amd64 bullseye      # Debian 11: Python 3.9, and TensorFlow 2.7 for jetson.py: make test-py39
#     tests/arm64/run.sh arm64 bookworm -k ring     # only some of the tests
#
# The first time it makes the system, with debootstrap, in .roots/ (git ignores it; rm -rf it to begin anew). Root only, since
# it changes into that system. Needs: apt-get install debootstrap qemu-user-static; recordings in $BIRDCALL_DATA.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

arch=${1:-arm64} suite=${2:-bookworm}
shift $(($# < 2 ? $# : 2)) # what follows is for pytest: -k ring
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
root=.roots/$suite-$arch
data=${BIRDCALL_DATA:-../shared/data}
python=.venv/bin/python
out=.roots/out/$suite-$arch # bundles, and a record folder of each for this machine and the other: BUNDLE/, here/BUNDLE/, there/BUNDLE/

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

say() { printf '== %s\n' "$1"; }

make_root() {
    [ ! -e "$root/made" ] || return 0
    say "make $root: some minutes, once"
    rm -rf "$root"
    mkdir -p .roots
    printf '*\n' >.roots/.gitignore
    debootstrap --variant=minbase --arch="$arch" \
        --include=ca-certificates,python3,python3-venv,python3-pip,libportaudio2 "$suite" "$root" "$mirror" >.roots/log ||
        fail "debootstrap: its words are in .roots/log"
    touch "$root/made"
}

# Programs of another processor are run by qemu; the kernel has to know that. The package's own line tells it.
register_qemu() {
    [ "$arch" != "$(dpkg --print-architecture)" ] || return 0
    local binfmt=/proc/sys/fs/binfmt_misc name=qemu-aarch64
    [ "$arch" = arm64 ] || fail "only arm64 is emulated, not $arch"
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
    [ -e $binfmt/$name ] || cat /usr/lib/binfmt.d/$name.conf >$binfmt/register
}

# there COMMAND...: run it in the other system, where /birdcall is the repository, /out is $out, /recordings is $data. The mounts
# are of a namespace of their own, and gone with the command.
there() {
    mkdir -p "$root"/{birdcall,out,recordings}
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    local environment=(PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1)
    environment+=(PYTHONDONTWRITEBYTECODE=1)
    if [ -n "${PIP_CERT:-}" ]; then # of a proxy that this machine trusts
        cp "$PIP_CERT" "$root/etc/ssl/certs/here.crt"
        environment+=(PIP_CERT=/etc/ssl/certs/here.crt)
    fi
    # shellcheck disable=SC2016 # the inner shell's
    nice -n 10 unshare --mount bash -c '
        set -e
        root=$1 out=$2 data=$3
        shift 3
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind . "$root/birdcall"
        mount -o remount,bind,ro "$root/birdcall"
        mount --bind "$out" "$root/out"
        mount --bind "$data" "$root/recordings"
        exec chroot "$root" env -i "$@"' _ "$root" "$out" "$data" "${environment[@]}" "$@"
}

install_libraries() {
    local wanted
    wanted=$(cat edge/requirements.txt "$python_lines" | sha256sum)
    [ "$(cat "$root/installed" 2>/dev/null)" != "$wanted" ] || return 0
    say "install edge/requirements.txt"
    there python3 -m venv /venv
    there /venv/bin/python -m pip install -q -r /birdcall/edge/requirements.txt -r /birdcall/"$python_lines"
    printf '%s' "$wanted" >"$root/installed"
}

# listening PYTHON BUNDLE RECORDING FOLDER: `command` is what finds every species in every window of a recording.
listening() { command=("$1" edge/listen.py --model "$2" --input "$3" --speed 0 --threshold 0 -o "$4"); }

[ "$(id -u)" = 0 ] || fail "only root can change into another system: use sudo"
for program in debootstrap qemu-aarch64-static; do
    command -v $program >/dev/null || fail "$program is not here: apt-get install debootstrap qemu-user-static"
done
python_lines=tests/arm64/requirements.txt
soundscape=$(cd "$data" 2>/dev/null && find birdsong-recognition/example_test_audio -name 'ORANGE*.mp3' | head -1) || true
[ -n "$soundscape" ] || fail "no real soundscape in $data: set BIRDCALL_DATA"

make_root
register_qemu
rm -rf "$out"
mkdir -p "$out"
install_libraries
there /venv/bin/python -VV

say "make the bundles here: they need TensorFlow"
PYTHONPATH=tests:. $python tests/arm64/bundles.py "$out"

say "the listener's tests"
began=$SECONDS
# Those of parts that a training machine needs, and this list's reasons, are in tests/arm64/plugin.py.
there env -C /birdcall PYTHONPATH=/birdcall/tests/arm64 BIRDCALL_BUNDLES=/out BIRDCALL_DATA=/recordings \
    /venv/bin/python -m pytest -n 0 -p plugin tests -q --basetemp=/tmp/tests "$@" ||
    failed="the listener's tests"
say "tests: $((SECONDS - began)) s"

say "a real soundscape: $soundscape"
mkdir -p "$out/here" "$out/there"
for bundle in tones tiny; do
    listening $python "$out/$bundle" "$data/$soundscape" "$out/here/$bundle"
    "${command[@]}" >"$out/here/$bundle.log" 2>&1 || fail "listen.py here: its words are in $out/here/$bundle.log"
    began=$SECONDS
    listening /venv/bin/python "/out/$bundle" "/recordings/$soundscape" "/out/there/$bundle"
    there env -C /birdcall "${command[@]}" >"$out/there/$bundle.log" 2>&1 ||
        fail "listen.py there: its words are in $out/there/$bundle.log"
    say "$bundle: $((SECONDS - began)) s"
    for table in events detections; do
        $python tests/arm64/compare.py "$out/here/$bundle/journal.sqlite" "$out/there/$bundle/journal.sqlite" --table $table ||
            failed="${failed:-}${failed:+, }the $table of $bundle"
    done
done

if [ "$suite-$arch" = bullseye-amd64 ]; then
    say "a Jetson's TensorFlow 2.7, without its GPU"
    there bash -c '[ -x /tf/bin/python ] || python3 -m venv /tf'
    there /tf/bin/python -m pip install -q tensorflow-cpu==2.7.4 'numpy<1.24' 'protobuf<3.20'
    there env -C /birdcall TF_CPP_MIN_LOG_LEVEL=2 PYTHONPATH=. /venv/bin/python tests/arm64/tensorflow27.py /out/tiny /tf/bin/python ||
        failed="${failed:-}${failed:+, }TensorFlow 2.7"
fi
[ -z "${failed:-}" ] || fail "on $suite for $arch: $failed"
say "as here, on $suite for $arch"
