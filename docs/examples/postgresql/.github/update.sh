#!/bin/sh
# Brings what is new in the template into this checkout, and writes to the folder that is given: `state` is current,
# clean or conflict, and `body.md` is the text of the request to merge.
set -eu
mkdir -p "$1"

# Copier, without what was released in the last week, because most malicious releases are found within days.
code=0
uvx --exclude-newer "7 days" copier check-update --quiet || code=$?
case $code in
  0)
    echo current > "$1/state"
    exit
    ;;
  # There is something new.
  2) ;;
  *) exit "$code" ;;
esac

version() { sed -n 's/^_commit: //p'; }
before=$(version < .copier-answers.yml)
uvx --exclude-newer "7 days" copier update --defaults --skip uv.lock
conflicts=$(git diff --name-only --diff-filter=U)
deleted=$(git diff --name-only --diff-filter=D)
case $conflicts in
  *pyproject.toml*) ;;
  *) uv lock ;;
esac

list() { printf '\n%s\n\n' "$1" && echo "$2" | sed 's/.*/- `&`/'; }
{
  echo "The template has moved from $before to $(version < .copier-answers.yml)."
  [ -z "$conflicts" ] || list "To be resolved on this branch, and locked again after it if pyproject.toml is among them:" "$conflicts"
  [ -z "$deleted" ] || list "Deleted:" "$deleted"
} > "$1/body.md"
[ -n "$conflicts" ] && state=conflict || state=clean
echo $state > "$1/state"
