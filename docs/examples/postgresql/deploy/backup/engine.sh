# PostgreSQL, for backup.sh.

# Use the server of compose.prod.yaml. A password in a file is in no list of processes.
connect() {
    export PGHOST=database PGUSER=app PGPASSFILE=/tmp/passfile
    (umask 077 && sed 's/[\\:]/\\&/g; s/^/*:*:*:*:/' /run/secrets/database_password >$PGPASSFILE)
}

answers() {
    pg_isready --quiet
}

# Use a new server of this container, which listens on no network.
new_database() {
    local data=/var/lib/postgresql/drill
    export PGHOST=/tmp PGUSER=app
    initdb --pgdata=$data --username=app --auth=trust --no-sync >/tmp/initdb
    pg_ctl --pgdata=$data --silent --wait --log=$data/log \
        --options="-c listen_addresses='' -c unix_socket_directories=/tmp -c fsync=off" start || fail "$(cat $data/log)"
}

# Run the SQL of the standard input.
sql() {
    psql --no-psqlrc --quiet --tuples-only --no-align --field-separator=$'\t' --set=ON_ERROR_STOP=1 app
}

# For each table: its rows, a checksum of them that doesn't depend on their order, and its valid constraints.
tables="
SET search_path = ''; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres';
SET extra_float_digits = 1; SET bytea_output = 'hex';
SELECT format(
    'SELECT %L, count(*), coalesce(sum(hashtextextended(\"the row\"::text, 0)), 0), %s FROM ONLY %s AS \"the row\"',
    oid::regclass,
    (SELECT count(*) FROM pg_catalog.pg_constraint WHERE conrelid = tables.oid AND convalidated),
    oid::regclass)
FROM pg_catalog.pg_class AS tables
WHERE relkind = 'r' AND relpersistence <> 't'
    AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')
ORDER BY oid::regclass::text
\\gexec"

# pg_dump reads what this session sees, so that the rows which are counted are those in the dump.
dump() {
    export FOLDER=$1
    sql >"$1/tables" <<END
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_export_snapshot() AS snapshot \gset
\setenv SNAPSHOT :snapshot
\! pg_dump --format=custom --snapshot="\$SNAPSHOT" --file="\$FOLDER/app.dump" app || rm -f "\$FOLDER/app.dump"
$tables
COMMIT;
END
    [[ -e $1/app.dump ]]
}

load() {
    pg_restore --dbname=postgres --clean --if-exists --create --exit-on-error "$1/app.dump"
}

# Loading has checked the constraints, because PostgreSQL adds them when the rows are there.
check() {
    sql <<<"$tables" >/tmp/tables
    compare "$1/tables" /tmp/tables
}
