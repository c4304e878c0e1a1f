# MySQL, for backup.sh.

options=/tmp/options.cnf

# Use the server of compose.prod.yaml. A password in a file is in no list of processes.
connect() {
    local password
    password=$(sed 's/[\\"]/\\&/g' /run/secrets/database_root_password)
    (umask 077 && printf '[client]\nhost=database\nuser=root\npassword="%s"\n' "$password" >$options)
}

answers() {
    mysqladmin --defaults-extra-file=$options --silent ping >/dev/null 2>&1
}

# Use a new server of this container, which listens on no network.
new_database() {
    local data=/var/lib/mysql/drill
    local server=(mysqld --no-defaults --datadir=$data --secure-file-priv=NULL --performance-schema=OFF)
    "${server[@]}" --initialize-insecure --log-error=/tmp/log || fail "$(cat /tmp/log)"
    "${server[@]}" --socket=/tmp/mysql.sock --pid-file=/tmp/mysql.pid --skip-networking --mysqlx=OFF --skip-log-bin \
        --innodb-flush-log-at-trx-commit=0 --log-error=/tmp/log &
    printf '[client]\nsocket=/tmp/mysql.sock\nuser=root\n' >$options
    until answers; do
        kill -0 $! 2>/dev/null || fail "$(cat /tmp/log)"
        sleep 0.2
    done
    # Views and triggers may belong to the service's user.
    echo "CREATE USER app; GRANT ALL ON app.* TO app" | sql mysql
}

# Run the SQL of the standard input in this database.
sql() {
    mysql --defaults-extra-file=$options --batch --skip-column-names "$@"
}

# One transaction reads all tables, and nobody waits for it. The same rows always make the same dump.
mysqldump_app() {
    mysqldump --defaults-extra-file=$options --single-transaction --quick --no-tablespaces --set-gtid-purged=OFF \
        --routines --events --triggers --hex-blob --order-by-primary --skip-dump-date \
        --add-drop-database --databases app
}

dump() {
    mysqldump_app | gzip >"$1/app.sql.gz"
}

load() {
    gzip --decompress --stdout "$1/app.sql.gz" | sql
}

# Print the checksum of a dump without its comments, which name the server.
checksum() {
    { grep --invert-match '^-- ' || true; } | sha256sum
}

# Loading doesn't check foreign keys, so look for rows whose parent is missing.
orphans="
SET SESSION group_concat_max_len = 1000000;
SELECT CONCAT(
    'SELECT ''', table_name, ''', ''', constraint_name, ''', COUNT(*) FROM \`', table_name, '\` child LEFT JOIN \`',
    referenced_table_schema, '\`.\`', referenced_table_name, '\` parent ON ',
    GROUP_CONCAT('child.\`', column_name, '\` = parent.\`', referenced_column_name, '\`' SEPARATOR ' AND '),
    ' WHERE ', GROUP_CONCAT('child.\`', column_name, '\` IS NOT NULL' SEPARATOR ' AND '),
    ' AND parent.\`', MIN(referenced_column_name), '\` IS NULL HAVING COUNT(*) > 0;')
FROM information_schema.key_column_usage
WHERE table_schema = 'app' AND referenced_table_name IS NOT NULL
GROUP BY table_name, constraint_name, referenced_table_schema, referenced_table_name"

counts="
SELECT CONCAT('SELECT ''', table_name, ''', COUNT(*) FROM \`', table_name, '\`;')
FROM information_schema.tables WHERE table_schema = 'app' AND table_type = 'BASE TABLE' ORDER BY table_name"

check() {
    local table rows orphaned restored expected
    sql app <<<"$counts" | sql app | while IFS=$'\t' read -r table rows; do
        echo "$table: $rows rows"
    done
    orphaned=$(sql app <<<"$orphans" | sql app)
    [[ -z $orphaned ]] || fail "Rows without the row that their foreign key names: $orphaned"
    # The dump of the restored database has to be the same, to the last character.
    restored=$(mysqldump_app | checksum)
    expected=$(gzip --decompress --stdout "$1/app.sql.gz" | checksum)
    [[ $restored == "$expected" ]] || fail "The restored database is not the same as the backup."
}
