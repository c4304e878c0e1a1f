# Makes backups of the database, keeps the newest, and restores them. DEPLOYMENT.md has the commands.
#
#   schedule         makes a backup each BACKUP_INTERVAL
#   now              makes a backup
#   healthy          fails where the newest backup is too old
#   restore [NAME]   replaces the database by the newest backup, or by the one of this name
#   drill [NAME]     restores it into a new database instead, and compares every row
#
# A backup is a folder whose name is the time when it began, and which gets that name when it is whole. engine.sh has
# what depends on the database.
set -euo pipefail

folder=/backups
failed=/tmp/failed
here=$(dirname "$0")
source "$here/engine.sh"
trap "exit 1" INT TERM

log() {
    local text=${2//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    printf '{"time":"%s","level":"%s","logger":"backup","message":"%s"}\n' \
        "$(date --utc +%FT%T.%3NZ)" "$1" "${text//[[:cntrl:]]/ }"
}

fail() {
    echo "$1" >&2
    exit 1
}

declare -A seconds=([s]=1 [m]=60 [h]=3600 [d]=86400)
[[ $BACKUP_INTERVAL =~ ^([1-9][0-9]{0,6})([smhd])$ ]] ||
    fail "BACKUP_INTERVAL: must be a whole number of s, m, h or d, such as 6h, and is '$BACKUP_INTERVAL'."
interval=$((BASH_REMATCH[1] * ${seconds[${BASH_REMATCH[2]}]}))
[[ $BACKUP_KEEP =~ ^[1-9][0-9]{0,6}$ ]] ||
    fail "BACKUP_KEEP: must be a whole number from 1, and is '$BACKUP_KEEP'."

# Print the names of the backups, the oldest first.
names() {
    ls "$folder" | grep --extended-regexp '^[0-9]{8}T[0-9]{6}Z$' || true
}

# Print how many seconds ago the newest backup began, or nothing if there is none.
age() {
    local newest
    newest=$(names | tail --lines=1)
    [[ -z $newest ]] || echo $(($(date +%s) - $(stat --format=%Y "$folder/$newest")))
}

schedule() {
    local age pause=$((interval < 60 ? interval : 60))
    # What a container that was stopped began.
    rm -rf "$folder"/.new.*
    while true; do
        age=$(age)
        if ((${age:-interval} < interval)); then
            # Not all at once: `now` may make a backup meanwhile.
            wait_for sleep $((interval - age < pause ? interval - age : pause))
        elif wait_for bash "$0" now 2>/tmp/errors; then
            rm -f $failed
        else
            touch $failed
            log ERROR "The backup failed. The next try is in $pause s. $(</tmp/errors)"
            wait_for sleep $pause
        fi
    done
}

# Run a command in the background, so that a signal ends this script at once, and the container with it.
wait_for() {
    "$@" &
    wait $!
}

now() {
    local started new name old files size
    # Backups are named by the second, and the name of this one may be taken.
    while [[ -e $folder/$(date --utc +%Y%m%dT%H%M%SZ) ]]; do sleep 0.1; done
    started=$(date +%s)
    new=$(mktemp --directory "$folder/.new.XXXXXX")
    trap "rm -rf '$new'" EXIT
    chmod 755 "$new"
    connect
    dump "$new"
    cd "$new"
    files=(*)
    sha256sum "${files[@]}" >SHA256SUMS
    sync "${files[@]}" SHA256SUMS
    touch --date="@$started" "$new"
    name=$(date --utc --date="@$started" +%Y%m%dT%H%M%SZ)
    mv --no-target-directory "$new" "$folder/$name"
    for old in $(names | head --lines="-$BACKUP_KEEP"); do
        rm -rf "${folder:?}/$old" || log ERROR "The backup $old can't be deleted."
    done
    size=$(du --bytes --summarize "$folder/$name" | cut --fields=1)
    log INFO "Backup $name: $size bytes in $(($(date +%s) - started)) s, $(names | wc --lines) kept"
}

# Fail where no backup is newer than one and a quarter intervals, or where the first one failed.
healthy() {
    local age
    age=$(age)
    if [[ -z $age ]]; then
        [[ ! -e $failed ]] || fail "There is no backup, and the last try failed."
    else
        ((age <= interval * 5 / 4)) || fail "The newest backup is $age s old."
    fi
}

# Check that a backup is as it was made, and set `backup` to its folder.
choose() {
    local name=${1:-$(names | tail --lines=1)}
    [[ -n $name ]] || fail "There is no backup."
    backup=$folder/$name
    [[ $name != */* && -d $backup ]] || fail "There is no backup $name."
    (cd "$backup" && sha256sum --check --strict --quiet SHA256SUMS) || fail "The backup $name is damaged."
}

# Restore, and compare the database with the backup. $1 is what to call the database.
restore() {
    load "$backup"
    check "$backup"
    echo "Every row of the backup ${backup##*/} is in the $1, and the constraints hold."
}

# Print a line for each table of the file $1. Fail unless the file $2 has the same lines.
compare() {
    local line table rows differ=""
    while IFS= read -r line; do
        IFS=$'\t' read -r table rows _ <<<"$line"
        if grep --quiet --line-regexp --fixed-strings -e "$line" "$2"; then
            echo "$table: $rows rows"
        else
            echo "$table: not the same $rows rows"
            differ+=" $table"
        fi
    done <"$1"
    [[ -z $differ ]] || fail "Not as they were in the backup:$differ"
}

case ${1:-} in
    schedule) schedule ;;
    now) now ;;
    healthy) healthy ;;
    restore)
        choose "${2:-}"
        connect
        # A server that has just been started may not be reached at once.
        for _ in {1..30}; do ! answers || break; sleep 1; done
        restore database
        ;;
    drill)
        choose "${2:-}"
        new_database
        restore "new database"
        ;;
    *) fail "$(sed --quiet '3,7s/^# *//p' "$0")" ;;
esac
