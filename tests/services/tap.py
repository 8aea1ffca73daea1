"""A Table Access Protocol service in little: asynchronous jobs, uploads, ADQL by way of SQLite.

It answers what the client under test asks; ``make test-archive`` asks the same of a full TAP
server (DaCHS).
"""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import numpy as np
from astropy.io import votable
from astropy.table import MaskedColumn
from astropy.table import Table as AstropyTable

from services.http import Fault, Reply, Service
from services.made import Table

SCHEMAS = ("gaiadr3", "gaiadr1", "tap_upload")


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

    Attributes
    ----------
    step
        Part of the path of requests that take a fault: ``phase``, ``results``, or "" for any.
    jobs
        Those not deleted yet.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        super().__init__()
        self.step = ""
        self.jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        for schema in SCHEMAS:
            self._database.execute(f"ATTACH ':memory:' AS {schema}")
        for name, table in tables.items():
            self._create(name, table)
        self._database.create_function("POINT", 3, lambda _, ra, dec: json.dumps([ra, dec]))
        self._database.create_function("CIRCLE", 4, lambda _, *cone: json.dumps(cone))
        self._database.create_function("CONTAINS", 2, _contains)

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self._database.close()

    @property
    def address(self) -> str:
        """For the client."""
        return f"{self.url}/tap"

    def faulty(self, path: str) -> bool:
        """Only the step that is chosen fails."""
        return self.step in path

    def answer(
        self, method: str, path: str, headers: Any, body: bytes, fault: Fault | None
    ) -> Reply:
        """One step of a job; the faults ``error`` and ``overflow`` are for a query that runs."""
        steps = urlsplit(path).path.strip("/").split("/")
        if steps[:2] != ["tap", "async"]:
            return Reply(b"no such service", "text/plain", 404)
        if len(steps) == 2 and method == "POST":
            return self._new(headers, body)
        job = self.jobs.get(steps[2]) if len(steps) > 2 else None
        if job is None:
            return Reply(b"no such job", "text/plain", 404)
        here = f"{self.address}/async/{steps[2]}"
        if method == "DELETE":
            del self.jobs[steps[2]]
            return Reply(b"", status=200)
        if steps[3:] == ["phase"] and method == "POST":
            self._run(job, fault)
            return Reply(b"", status=303, headers=(("Location", here),))
        if steps[3:] == ["results", "result"]:
            return Reply(job.result, "application/x-votable+xml")
        return Reply(_document(steps[2], job, here).encode(), "text/xml")

    def _create(self, name: str, table: Mapping[str, list[Any]]) -> None:
        self._database.execute(f"CREATE TABLE {name} ({', '.join(table)})")
        marks = ", ".join("?" * len(table))
        self._database.executemany(
            f"INSERT INTO {name} VALUES ({marks})", zip(*table.values(), strict=True)
        )

    def _new(self, headers: Any, body: bytes) -> Reply:
        parameters, uploads = _form(headers.get("Content-Type", ""), body)
        number = str(next(self._numbers))
        self.jobs[number] = Job(parameters, uploads)
        return Reply(b"", status=303, headers=(("Location", f"{self.address}/async/{number}"),))

    def _run(self, job: Job, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "error":
            job.phase, job.error = "ERROR", "the database is out of sorts"
            return
        try:
            with self.lock:
                for name, document in job.uploads.items():
                    self._database.execute(f"DROP TABLE IF EXISTS tap_upload.{name}")
                    self._create(f"tap_upload.{name}", _uploaded(document))
                cursor = self._database.execute(_as_sqlite(job.parameters["QUERY"]))
                rows = cursor.fetchall()
        except sqlite3.Error as error:
            job.phase, job.error = "ERROR", str(error)
            return
        most = int(job.parameters.get("MAXREC", 2000))
        over = len(rows) > most or (fault is not None and fault.kind == "overflow")
        names = [column[0] for column in cursor.description]
        job.result = _votable(names, rows[:most], "OVERFLOW" if over else "OK")
        job.phase = "COMPLETED"


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """Parameters (by upper-case name) and uploaded tables of a request."""
    if not content_type.startswith("multipart/"):
        return {name.upper(): value for name, value in parse_qsl(body.decode())}, {}
    message = BytesParser().parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parameters, files = {}, {}
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is None:
            parameters[name.upper()] = part.get_payload(decode=True).decode()
        else:
            files[name] = part.get_payload(decode=True)
    uploads = {}
    for one in parameters.get("UPLOAD", "").split(";"):
        table, _, source = one.partition(",")
        uploads[table] = files[source.removeprefix("param:")]
    return parameters, uploads


def _uploaded(document: bytes) -> dict[str, list[Any]]:
    table = votable.parse(io.BytesIO(document)).get_first_table()
    return {entry.name: table.array[entry.ID].tolist() for entry in table.fields}


def _as_sqlite(adql: str) -> str:
    return re.sub(r"^SELECT TOP (\d+) (.*)$", r"SELECT \2 LIMIT \1", adql.strip(), flags=re.S)


def _contains(point: str, circle: str) -> int:
    (ra, dec), (ra0, dec0, radius) = json.loads(point), json.loads(circle)
    one, other = (_unit(*place) for place in ((ra, dec), (ra0, dec0)))
    return int(math.dist(one, other) <= 2 * math.sin(math.radians(radius) / 2))


def _unit(ra: float, dec: float) -> tuple[float, float, float]:
    ra, dec = math.radians(ra), math.radians(dec)
    return math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)


def _votable(names: list[str], rows: list[tuple[Any, ...]], status: str) -> bytes:
    columns = []
    for place, name in enumerate(names):
        values = [row[place] for row in rows]
        known = [value for value in values if value is not None]
        mask = [value is None for value in values]
        if name == "has_xp_continuous":
            kind: Any = bool
        elif known and all(isinstance(value, str) for value in known):
            kind = str
        else:
            kind = np.int64 if all(isinstance(value, int) for value in known) else np.float64
        filled = [kind() if value is None else value for value in values]
        columns.append(MaskedColumn(np.array(filled, kind), name=name, mask=mask))
    document = votable.from_table(AstropyTable(columns))
    document.resources[0].infos.append(
        votable.tree.Info(name="QUERY_STATUS", value=status, config={"version_1_1_or_later": True})
    )
    out = io.BytesIO()
    document.to_xml(out, tabledata_format="binary2")
    return out.getvalue()


def _document(number: str, job: Job, here: str) -> str:
    results = (
        f'<uws:result id="result" xlink:href="{here}/results/result"/>'
        if job.phase == "COMPLETED"
        else ""
    )
    error = (
        f'<uws:errorSummary type="fatal" hasDetail="false"><uws:message>{escape(job.error)}'
        "</uws:message></uws:errorSummary>"
        if job.error
        else ""
    )
    return (
        '<?xml version="1.0"?><uws:job xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1">'
        f"<uws:jobId>{number}</uws:jobId><uws:phase>{job.phase}</uws:phase>"
        "<uws:executionDuration>60</uws:executionDuration><uws:parameters/>"
        f"<uws:results>{results}</uws:results>{error}</uws:job>"
    )
