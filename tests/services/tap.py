"""A Table Access Protocol service in little: asynchronous jobs, uploads, ADQL by way of SQLite.

It answers what the client under test asks; ``make test-archive`` asks the same of a full TAP
server (DaCHS).
"""

from __future__ import annotations

import io
import itertools
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import numpy as np
from astropy.coordinates import angular_separation
from astropy.io import votable
from astropy.table import MaskedColumn
from astropy.table import Table as AstropyTable

from services.http import Fault, Reply, Service
from services.made import Table


@dataclass
class Job:
    """One asynchronous query."""

    parameters: dict[str, str]
    uploads: dict[str, bytes] = field(default_factory=dict)
    phase: str = "PENDING"
    result: bytes = b""
    error: str = ""


class TapService(Service):
    """Publishes ``tables`` at ``/tap``.

    Requests with ``step`` in their path take a fault: ``phase``, ``results``, or "" for any.
    ``jobs`` are those not deleted yet.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        super().__init__()
        self.step = ""
        self.jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        pairs = [(name, column) for name, table in tables.items() for column in table]
        schema = {
            "TAP_SCHEMA.tables": {"table_name": [*tables]},
            "TAP_SCHEMA.columns": {
                "table_name": [name for name, _ in pairs],
                "column_name": [column for _, column in pairs],
            },
        }
        for one in {"tap_upload", "TAP_SCHEMA", *(name.split(".")[0] for name in tables)}:
            self._database.execute(f"ATTACH ':memory:' AS {one}")
        for name, table in (tables | schema).items():
            self._create(name, table)
        self._database.create_function("POINT", 3, lambda _, *place: json.dumps(place))
        self._database.create_function("CIRCLE", 4, lambda _, *cone: json.dumps(cone))
        self._database.create_function("CONTAINS", 2, _contains)

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self._database.close()

    @property
    def address(self) -> str:
        return f"{self.url}/tap"

    def execute(self, sql: str) -> None:
        """Change what is published."""
        self._database.execute(sql)

    def faulty(self, path: str) -> bool:
        return self.step in path

    def answer(
        self, method: str, path: str, headers: Any, body: bytes, fault: Fault | None
    ) -> Reply:
        """One step of a job; the faults ``error`` and ``overflow`` are for a query that runs."""
        steps = urlsplit(path).path.strip("/").split("/")
        if steps == ["tap", "async"] and method == "POST":
            number = str(next(self._numbers))
            self.jobs[number] = Job(*_form(headers.get("Content-Type", ""), body))
            return self._see(number)
        if steps[:2] != ["tap", "async"] or len(steps) < 3 or steps[2] not in self.jobs:
            return Reply(b"no such service or job", "text/plain", 404)
        number, job = steps[2], self.jobs[steps[2]]
        if method == "DELETE":
            del self.jobs[number]
            return Reply(b"")
        if steps[3:] == ["phase"] and method == "POST":
            self._run(job, fault.kind if fault is not None else "")
            return self._see(number)
        if steps[3:] == ["results", "result"]:
            return Reply(job.result, "application/x-votable+xml")
        return Reply(self._document(number, job).encode(), "text/xml")

    def _see(self, number: str) -> Reply:
        return Reply(b"", status=303, headers=(("Location", f"{self.address}/async/{number}"),))

    def _create(self, name: str, table: Mapping[str, list[Any]]) -> None:
        self._database.execute(f"CREATE TABLE {name} ({', '.join(table)})")
        marks = ", ".join("?" * len(table))
        rows = zip(*table.values(), strict=True)
        self._database.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)

    def _run(self, job: Job, fault: str) -> None:
        if fault == "error":
            job.phase, job.error = "ERROR", "the database is out of sorts"
            return
        adql = re.sub(r"^SELECT TOP (\d+) (.*)$", r"SELECT \2 LIMIT \1", job.parameters["QUERY"])
        try:
            with self.lock:
                for name, document in job.uploads.items():
                    self._database.execute(f"DROP TABLE IF EXISTS tap_upload.{name}")
                    table = votable.parse(io.BytesIO(document)).get_first_table()
                    columns = {one.name: table.array[one.ID].tolist() for one in table.fields}
                    self._create(f"tap_upload.{name}", columns)
                cursor = self._database.execute(adql)
                rows = cursor.fetchall()
        except sqlite3.Error as error:
            job.phase, job.error = "ERROR", str(error)
            return
        most = int(job.parameters.get("MAXREC", 2000))
        over = len(rows) > most or fault == "overflow"
        names = [column[0] for column in cursor.description]
        job.result = _votable(names, rows[:most], "OVERFLOW" if over else "OK")
        job.phase = "COMPLETED"

    def _document(self, number: str, job: Job) -> str:
        """The job in XML (UWS 1.1)."""
        href = f"{self.address}/async/{number}/results/result"
        result = f'<uws:result id="result" xlink:href="{href}"/>'
        error = (
            '<uws:errorSummary type="fatal" hasDetail="false"><uws:message>'
            f"{escape(job.error)}</uws:message></uws:errorSummary>"
        )
        return (
            '<?xml version="1.0"?><uws:job xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" '
            'xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1">'
            f"<uws:jobId>{number}</uws:jobId><uws:phase>{job.phase}</uws:phase>"
            "<uws:executionDuration>60</uws:executionDuration><uws:parameters/>"
            f"<uws:results>{result if job.phase == 'COMPLETED' else ''}</uws:results>"
            f"{error if job.error else ''}</uws:job>"
        )


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """Parameters (by upper-case name) and uploaded tables of a request."""
    if not content_type.startswith("multipart/"):
        return {name.upper(): value for name, value in parse_qsl(body.decode())}, {}
    message = BytesParser().parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.get_payload()
    }
    parameters = {name.upper(): parts[name].decode() for name in parts if name.isupper()}
    pairs = (one.split(",param:") for one in parameters["UPLOAD"].split(";"))
    return parameters, {table: parts[source] for table, source in pairs}


def _contains(point: str, circle: str) -> bool:
    ra, dec, ra0, dec0, radius = np.radians(json.loads(point) + json.loads(circle))
    return bool(angular_separation(ra, dec, ra0, dec0) <= radius)


def _votable(names: list[str], rows: list[tuple[Any, ...]], status: str) -> bytes:
    columns = []
    for place, name in enumerate(names):
        values = [row[place] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        kind: Any = np.float64 if float in kinds else np.int64
        truth = name.startswith("has_xp") or name == "probable_match"
        if str in kinds:
            kind = str
        elif truth and {*values} <= {0, 1, None}:
            kind = bool
        filled = np.array([kind() if value is None else value for value in values], kind)
        columns.append(MaskedColumn(filled, name=name, mask=[value is None for value in values]))
    document = votable.from_table(AstropyTable(columns))
    document.resources[0].infos.append(
        votable.tree.Info(name="QUERY_STATUS", value=status, config={"version_1_1_or_later": True})
    )
    out = io.BytesIO()
    document.to_xml(out, tabledata_format="binary2")
    return out.getvalue()
