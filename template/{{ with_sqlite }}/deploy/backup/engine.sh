# SQLite, for backup.sh.

connect() { :; }

answers() { :; }

# Use the file of the drill's own volume.
new_database() {
    python "$here/sqlite.py" new
}

dump() {
    local tries=60
    # At the first start, the migrations make the file.
    until [[ -e ${DATABASE_URL#sqlite:///} || -n $(names) ]] || ((tries-- == 0)); do sleep 1; done
    python "$here/sqlite.py" dump "$1/app.db" "$1/tables"
}

load() {
    python "$here/sqlite.py" load "$1/app.db"
}

check() {
    python "$here/sqlite.py" check >/tmp/tables
    compare "$1/tables" /tmp/tables
}
