#!/bin/bash
# Makes the listener and its page services of this box; again: upgrades them; uninstall: takes them away. See --help.
set -euo pipefail

usage() {
    cat <<'END'
Makes the listener and its page services of this box (Debian, Ubuntu, Raspberry Pi OS; 64 bits), or takes them away.

    sudo edge/install.sh --model runs/b0/fold0          # a bundle, a fold or a run that train.py wrote
    sudo edge/install.sh                                # again: upgrades the code, keeps the model and all settings
    edge/install.sh --model runs/b0 --dry-run           # prints every step, changes nothing
    sudo edge/install.sh --model /media/stick/bundle --wheels /media/stick/wheels      # without a network; see below
    sudo edge/install.sh uninstall                      # keeps the record and the settings
    sudo edge/install.sh uninstall --purge              # keeps nothing

    --model PATH      what to listen with; needed the first time
    --prefix DIR      where code, libraries and model go: /opt/birdcall
    --python PROGRAM  Python 3.9 or later for the libraries: python3
    --wheels DIR      take the libraries from this folder, which `pip download -r edge/requirements.txt -d DIR` fills
                      on another box of the same kind
    --venv DIR        use this environment, which has the libraries, and make none
    --no-start        install, and start at the next boot only
    --dry-run         print the steps
    --help            this

Afterwards: /etc/birdcall/listen.conf and page.conf hold the options, /etc/birdcall/secrets the passwords; none of them is
overwritten by an upgrade. The record is in /var/lib/birdcall, the page at http://localhost:8080.
    systemctl status birdcall-listen birdcall-page;  journalctl -u birdcall-listen -f
END
}

action=install prefix="" model="" python=python3 wheels="" venv="" start=yes dry_run="" purge="" changed=""
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
services=(birdcall-listen.service birdcall-page.service)
record=/var/lib/birdcall settings=/etc/birdcall
units=/etc/systemd/system rule=/etc/udev/rules.d/90-birdcall.rules users=/etc/sysusers.d/birdcall.conf

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

step() { printf '%s\n' "$1"; }

# run COMMAND...: do it, or print it in a dry run.
run() {
    if [ -n "$dry_run" ]; then
        printf '   '
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}

parse() {
    local taken
    while [ $# -gt 0 ]; do
        taken=1
        case $1 in
            install | uninstall) action=$1 ;;
            --model | --prefix | --python | --wheels | --venv)
                [ $# -ge 2 ] || fail "$1 needs a value; see --help"
                printf -v "${1#--}" %s "$2"
                taken=2
                ;;
            --no-start) start="" ;;
            --dry-run) dry_run=yes ;;
            --purge) purge=yes ;;
            --help | -h)
                usage
                exit 0
                ;;
            *) fail "$1 is not known; see --help" ;;
        esac
        shift $taken
    done
    # Where it is installed already is told by its unit.
    local found=""
    if [ -r "$units/birdcall-listen.service" ]; then
        found=$(sed -n 's|^ExecStart=\(/.*\)/venv/bin/python .*|\1|p' "$units/birdcall-listen.service")
    fi
    [ -z "$prefix" ] || [ -z "$found" ] || [ "$prefix" = "$found" ] ||
        fail "it is installed in $found; uninstall that before you choose --prefix $prefix"
    prefix=${prefix:-${found:-/opt/birdcall}}
    # It becomes part of the units and of what `uninstall` removes.
    case $prefix in
        *[!A-Za-z0-9._/-]* | *..* | */ | *//*) fail "--prefix $prefix: give a plain path, such as /opt/birdcall" ;;
        /?*) ;;
        *) fail "--prefix $prefix: give a path that begins with /, and not / itself" ;;
    esac
    [ -z "$purge" ] || [ "$action" = uninstall ] || fail "--purge is for uninstall"
    [ -n "$dry_run" ] || [ "$(id -u)" = 0 ] || fail "only root may do this: use sudo, or --dry-run to see the steps"
}

# Whether systemd runs here; it does not in a container, a chroot, or an image that is being made.
booted() { [ -d /run/systemd/system ]; }

check_box() {
    command -v systemctl >/dev/null || fail "systemd is not here, and the services need it; edge/Dockerfile does without"
    [ -z "$venv" ] || [ -x "$venv/bin/python" ] ||
        fail "--venv $venv: there is no bin/python in it; python3 -m venv $venv makes one"
    local missing=() needed=(libportaudio2)
    [ -n "$venv" ] || [ "$python" != python3 ] || needed+=(python3-venv)
    if command -v dpkg-query >/dev/null; then
        local package
        for package in "${needed[@]}"; do
            dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
        done
    else
        step "this is no Debian: PortAudio and Python's venv must be there already"
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        step "install what the system lacks"
        run apt-get install -qq -y --no-install-recommends "${missing[@]}" ||
            fail "apt-get could not install ${missing[*]}: try sudo apt-get update first, and look at its words above"
    fi
    command -v "$python" >/dev/null || { [ -n "$dry_run" ] && return; } ||
        fail "$python is not here: apt-get install python3, or name another with --python"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
        fail "$("$python" -V 2>&1) is too old: Python 3.9 or later is needed; name another with --python, or use edge/Dockerfile"
    "$python" -c 'import struct, sys; sys.exit(struct.calcsize("P") != 8)' ||
        fail "$python is of 32 bits, for which LiteRT is not made: install the 64-bit system (Raspberry Pi OS has one)"
}

check_model() {
    if [ -z "$model" ]; then
        [ -d "$prefix/model" ] || fail "--model is needed the first time: a bundle, a fold or a run that train.py wrote"
        return
    fi
    [ -n "$(bundles_in "$model")" ] ||
        fail "$model: no bundle there; give a bundle, a fold (runs/b0/fold0) or a run (runs/b0) that train.py wrote"
}

# bundles_in PATH: the folders with a bundle.json of a bundle, a fold or a run, a line each.
bundles_in() {
    local path
    for path in "$1" "$1/bundle"; do
        if [ -f "$path/bundle.json" ]; then
            printf '%s\n' "$path"
            return
        fi
    done
    for path in "$1"/fold*/bundle; do
        [ ! -f "$path/bundle.json" ] || printf '%s\n' "$path"
    done
}

# put SOURCE TARGET MODE: a file whole or not at all, with the prefix in it; nothing if it is there already.
put() {
    local text
    text=$(sed "s|/opt/birdcall|$prefix|g" "$repository/$1" && printf x)
    if [ -f "$2" ] && printf %s "${text%x}" | cmp -s - "$2"; then
        return
    fi
    changed=yes
    if [ -n "$dry_run" ]; then
        printf '    write %s (mode %s) from %s\n' "$2" "$3" "$1"
        return
    fi
    install -D -m "$3" /dev/null "$2.new"
    printf %s "${text%x}" >"$2.new"
    mv "$2.new" "$2"
}

# put_once SOURCE TARGET MODE: a file of settings, which is the user's from then on.
put_once() {
    if [ -e "$2" ]; then
        step "keep $2 as it is"
    else
        put "$@"
    fi
}

# What is new is made and tried beside what is there: an upgrade that fails leaves the listener in the forest as it was.
code="" environment="" model_folder=""

stage_code() {
    code=$prefix/code
    if [ "$repository" -ef "$code" ]; then
        step "keep the code: this is it"
        return
    fi
    step "copy edge/ and what it imports of src/"
    code=$prefix/code.new
    run rm -rf "$code"
    run mkdir -p "$code"
    if [ -n "$dry_run" ]; then
        printf '    %s files, as edge/needed.py lists them, to %s\n' "$("$python" "$repository/edge/needed.py" | wc -l)" "$code"
    else
        "$python" "$repository/edge/needed.py" |
            tar -C "$repository" --owner=0 --group=0 --mode=u=rwX,go=rX -cf - -T - |
            tar -C "$code" -xf -
    fi
    run "$python" -m compileall -q "$code"
}

stage_environment() {
    local requirements=$repository/edge/requirements.txt digest
    if [ -n "$venv" ]; then
        environment=$(realpath "$venv")
        return
    fi
    digest=$({ cat "$requirements" && "$python" -VV; } | sha256sum | cut -c 1-12)
    environment=$prefix/venv-$digest
    if [ "$(readlink "$prefix/venv")" = "$environment" ]; then
        step "keep the libraries in $environment"
        return
    fi
    step "install the libraries of edge/requirements.txt into $environment"
    run rm -rf "$environment"
    run "$python" -m venv "$environment" || fail "$python cannot make an environment: apt-get install python3-venv"
    local source=()
    [ -z "$wheels" ] || source=(--no-index --find-links "$wheels")
    run "$environment/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --no-cache-dir \
        "${source[@]}" -r "$requirements" ||
        fail "pip could not install edge/requirements.txt: see its words above; --wheels DIR does without a network"
}

stage_model() {
    model_folder=$prefix/model
    if [ -z "$model" ] || [ "$model" -ef "$model_folder" ]; then
        step "keep the model"
        return
    fi
    step "copy the model"
    model_folder=$prefix/model.new
    run rm -rf "$model_folder"
    local folder one="" target
    [ "$(bundles_in "$model" | wc -l)" != 1 ] || one=yes
    while read -r folder; do
        target=$model_folder
        [ -n "$one" ] || target=$target/$(basename "$(dirname "$folder")")/bundle
        run mkdir -p "$target"
        run cp -r "$folder/." "$target"
    done < <(bundles_in "$model")
    run chmod -R u=rwX,go=rX "$model_folder"
}

try_model() {
    step "ask the model about a window of silence, here and now"
    run env PYTHONDONTWRITEBYTECODE=1 "$environment/bin/python" "$code/edge/try_bundle.py" "$model_folder" ||
        fail "the model does not answer on this box: see the words above; nothing that runs was changed"
}

# swap STAGED FOLDER: STAGED becomes FOLDER, if it is another and differs.
swap() {
    [ "$1" != "$2" ] || return 0
    if [ -z "$dry_run" ] && [ -d "$2" ] && diff -rq -x __pycache__ "$1" "$2" >/dev/null; then
        rm -rf "$1"
        return
    fi
    changed=yes
    run rm -rf "$2.old"
    [ ! -e "$2" ] || run mv "$2" "$2.old"
    run mv "$1" "$2"
    run rm -rf "$2.old"
}

swap_all() {
    step "put them in place in $prefix"
    swap "$code" "$prefix/code"
    swap "$model_folder" "$prefix/model"
    if [ "$(readlink "$prefix/venv")" != "$environment" ]; then
        changed=yes
        run ln -sfn "$environment" "$prefix/venv"
    fi
    local old
    for old in "$prefix"/venv-*; do
        [ ! -d "$old" ] || [ "$old" = "$environment" ] || run rm -rf "$old"
    done
}

install_all() {
    check_box
    check_model
    run mkdir -p "$prefix"
    [ -n "$dry_run" ] || trap 'rm -rf "$prefix"/{code,model}.new' EXIT # whatever goes wrong
    stage_code
    stage_environment
    stage_model
    try_model
    swap_all

    step "make the user birdcall, who may hear the sound cards"
    put edge/systemd/birdcall.sysusers "$users" 644
    run systemd-sysusers "$users"
    step "write the units, the udev rule and, if they are not there, the settings"
    run mkdir -p "$settings"
    local service
    for service in "${services[@]}"; do
        put "edge/systemd/$service" "$units/$service" 644
    done
    put edge/udev/90-birdcall.rules "$rule" 644
    put_once edge/systemd/listen.conf "$settings/listen.conf" 644
    put_once edge/systemd/page.conf "$settings/page.conf" 644
    put_once edge/systemd/secrets "$settings/secrets" 600
    start_services
}

start_services() {
    step "start the services at every boot"
    if ! booted; then
        run systemctl enable --quiet "${services[@]}"
        step "systemd does not run here: they start when it does"
        return
    fi
    run systemctl daemon-reload
    run systemctl enable --quiet "${services[@]}"
    if systemctl is-active --quiet systemd-udevd; then  # not in a container
        run udevadm control --reload
        run udevadm trigger --action=add --subsystem-match=usb
    fi
    [ -n "$start" ] || return 0
    local service failed=""
    for service in "${services[@]}"; do
        if [ -z "$changed" ] && systemctl is-active --quiet "$service"; then
            step "$service runs, and nothing has changed"
        else
            step "start $service"
            run systemctl restart "$service" || {
                journalctl --no-pager -n 20 -u "$service" >&2
                failed=$service
            }
        fi
    done
    [ -z "$failed" ] || fail "$failed does not start: its last words are above; its options are in $settings"
}

uninstall_all() {
    if [ ! -e "$units/birdcall-listen.service" ] && [ ! -d "$prefix/code" ] && [ -z "$purge" ]; then
        step "nothing of the listener is installed here"
        return
    fi
    step "stop the services and remove them"
    local service
    for service in "${services[@]}"; do
        [ -e "$units/$service" ] || continue
        ! booted || run systemctl stop "$service"
        run systemctl disable --quiet "$service"
        run rm -f "$units/$service"
    done
    ! booted || run systemctl daemon-reload
    run rm -f "$rule" "$users"
    step "remove code, libraries and model from $prefix"
    run rm -rf "$prefix"/{code,model}{,.new,.old} "$prefix"/venv{,-*}
    [ ! -d "$prefix" ] || run rmdir --ignore-fail-on-non-empty "$prefix"
    if [ -z "$purge" ]; then
        step "kept: the record in $record, the settings in $settings, the user birdcall; uninstall --purge removes them"
        return
    fi
    step "remove the record, the settings and the user"
    run rm -rf "$record" "$settings" "$units"/birdcall-{listen,page}.service.d
    if getent passwd birdcall >/dev/null; then
        run find /dev/shm -user birdcall -delete
        run userdel birdcall
    fi
}

main() {
    parse "$@"
    case $action in
        install) install_all ;;
        uninstall) uninstall_all ;;
    esac
    [ -z "$dry_run" ] || step "nothing was changed: this was a dry run"
}

# One line, read whole before it begins: an uninstall removes the file it runs from.
main "$@"; exit
