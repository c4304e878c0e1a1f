"""Run what `make lock` asks for: `ARGS=--help` lists it, docs/lock.md explains it."""

import argparse
import sys

from harness.matrix import ROOT
from lock import LockError
from lock.files import check, update

parser = argparse.ArgumentParser(prog="make lock", description="Lock the dependencies of rendered services.")
group = parser.add_mutually_exclusive_group()
group.add_argument("--upgrade", action="store_true", help="move every pin to the newest release")
group.add_argument("--check", action="store_true", help="write nothing; fail where files are not up to date")
arguments = parser.parse_args()
try:
    if arguments.check:
        check(ROOT)
    else:
        update(ROOT, upgrade=arguments.upgrade)
except LockError as error:
    sys.exit(str(error))
