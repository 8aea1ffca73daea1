"""Read damaged files of every kind, and count what goes wrong.

    python tests/fuzz.py [--inputs N] [--seconds S] [--seed S] [--only csv,fits] [--output FOLDER]

Each input is a valid file, of made stars, with one to four mutations. A reader must give a result
or an error of the package that names the file, within 10 s of processor time and 1 GB; two ways to
read the same bytes must agree. Four counts are printed, and each input that fails is kept in a
folder of its own under --output, with what happened. Everything is read in this process, with a
limit of time and memory per input; an input that nothing can interrupt ends the process after two
minutes, and lies in the folder that the last lines name. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import hashlib
import io
import json
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from archive_files import arrays_of, fake_stars, write
from xplabels import simulate_stars
from xplabels.core.errors import XplabelsError
from xplabels.core.stars import Stars
from xplabels.cuts.rules import load_rules
from xplabels.fetch.answers import unpacked
from xplabels.fetch.targets import Targets
from xplabels.instrument.sed import read_sed
from xplabels.io import BadRows, read, read_blocks, write_stars
from xplabels.io.forms import NOBODY
from xplabels.io.hats import PartitionedTable
from xplabels.io.plain import read_table
from xplabels.io.tables import join_labels, join_photometry
from xplabels.model.storage import SHIPPED, read_model
from xplabels.pipeline.manifest import ManifestEntry
from xplabels.recipes import load_recipe

SECONDS, MEGABYTES = 10.0, 1000
KINDS = ("foreign", "slow", "large", "disagree")
"""Foreign exceptions (or errors that do not name the file), over 10 s, over 1 GB, disagreements."""
LONGEST_MESSAGE = 500
Files = dict[str, bytes]
"""Name in a folder -> contents."""


class Slow(BaseException):
    """The time for one input is over."""


@dataclass(frozen=True)
class Target:
    """A kind of input: valid files, of which ``mutable`` ones are damaged, and how it is read."""

    files: Files
    read: Callable[[Path], object]
    mutable: str = ""  # pattern of names; all
    agree: Callable[[Path], bool] | None = None


# Valid files -------------------------------------------------------------------------------------


def targets(folder: Path) -> dict[str, Target]:
    """Every kind of input by name; the files are made in ``folder``."""
    stars = fake_stars(4, (3, 4), without_bp=(1,))
    ids = stars.source_id

    def made(name: str) -> Files:
        return {name: write(stars, folder / name).read_bytes()}

    def spectra(files: Files, agree: Callable[[Path], bool] | None = None) -> Target:
        return Target(files, both_ways, agree=agree)

    found = {
        "csv": spectra(made("s.csv"), readers_agree),
        "bulk": spectra({"s.csv": gzip.decompress(made("s.csv.gz")["s.csv.gz"])}, readers_agree),
        "csv.gz": spectra(made("s.csv.gz"), readers_agree),
        "ecsv": spectra(made("s.ecsv")),
        "fits": spectra(made("s.fits")),
        "fixed.fits": spectra({"s.fits": fixed_fits(ids)}),
        "fits.gz": spectra({"s.fits.gz": gzip.compress(fixed_fits(ids))}),
        "tabledata": spectra(made("s.xml")),
        "binary2": spectra(made("s.vot")),
        "binary": spectra({"s.vot": votable(ids, "binary")}),
        "astropy tabledata": spectra({"s.vot": votable(ids, "tabledata")}),
        "parquet": spectra(made("s.parquet")),
        "star table": spectra(star_table(folder)),
        "zip": Target(datalink_zip(made("s.csv")), answer),
        "hats": Target(hats(folder), lambda path: read(path, "flag")),
        "hats lookup": Target(hats(folder), lambda path: PartitionedTable(path, ["g"])),
        "model": Target(model(), read_model, mutable="json|safetensors"),
        "recipe": Target({"r.toml": (SHIPPED.parent / "recipes/default.toml").read_bytes()},
                         load_recipe),
        "rules": Target({"r.toml": b'[rules]\ngood = "gaia.ruwe <= 1.2"\n'}, load_rules),
        "manifest": Target({"o.json": manifest()}, ManifestEntry.read),
        "ids": Target({"i.txt": "\n".join(map(str, ids)).encode()}, Targets.of_file),
        "sed.dat": Target({"s.dat": sed("dat")}, read_sed),
    }  # fmt: skip
    for name in ("csv", "csv.gz", "ecsv", "fits", "vot", "parquet"):
        found[f"photometry {name}"] = Target({f"p.{name}": table(ids, name)}, joined)
    for name in ("csv", "ecsv", "fits", "vot"):
        found[f"sed.{name}"] = Target({f"s.{name}": sed(name)}, read_sed)
    return found


def fixed_fits(ids: list[int]) -> bytes:
    """Spectra in columns of fixed length."""
    from astropy.io import fits

    columns = [fits.Column("source_id", "K", array=np.array(ids))]
    for name, width in widths().items():
        values = np.linspace(0.1, 0.9, len(ids) * width).reshape(len(ids), width)
        columns.append(fits.Column(name, f"{width}D", array=values))
    out = io.BytesIO()
    fits.BinTableHDU.from_columns(columns).writeto(out)
    return out.getvalue()


def widths() -> dict[str, int]:
    """Numbers in the arrays of a spectrum with five coefficients in each band."""
    parts = {"coefficients": 5, "coefficient_errors": 5, "coefficient_correlations": 10}
    return {f"{band}_{part}": width for band in ("bp", "rp") for part, width in parts.items()}


def as_astropy(columns: dict[str, Any], name: str) -> bytes:
    """Columns as astropy writes them, in the format of the ending ``name``."""
    from astropy.table import Table

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t.{name.removesuffix('.gz')}"
        keys = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "vot": "votable", "fits": "fits",
                "dat": "ascii.basic", "parquet": "parquet"}  # fmt: skip
        if path.suffix == ".parquet":
            pq.write_table(pa.table(columns), path)
        else:
            Table(columns).write(path, format=keys[path.suffix[1:]])
        data = path.read_bytes()
    return gzip.compress(data) if name.endswith(".gz") else data


def votable(ids: list[int], kind: str) -> bytes:
    """A VOTable of spectra as astropy writes it."""
    from astropy.io.votable import from_table
    from astropy.table import Table

    columns: dict[str, Any] = {"source_id": ids}
    for name, width in widths().items():
        columns[name] = np.linspace(0.1, 0.9, len(ids) * width).reshape(len(ids), width)
    out = io.BytesIO()
    from_table(Table(columns)).to_xml(out, tabledata_format=kind)
    return out.getvalue()


def table(ids: list[int], name: str) -> bytes:
    """A table of photometry, parallaxes and labels."""
    values = np.linspace(1, 2, len(ids))
    columns: dict[str, Any] = {"source_id": ids}
    for column in ("j_m", "j_msigcom", "parallax", "parallax_error"):
        columns[column] = values
    columns |= {"teff": 4000 + values, "teff_err": values, "note": ["a", "b", "c", "d"]}
    return as_astropy(columns, name)


def sed(name: str) -> bytes:
    """A spectral energy distribution."""
    return as_astropy({"wavelength": np.arange(330.0, 340), "flux": np.full(10, 1e-17)}, name)


def star_table(folder: Path) -> Files:
    """A star table with photometry and labels."""
    stars = simulate_stars(4, widths=(5, 5), labels=("teff", "logg"), seed=1)[0]
    write_stars(stars, folder / "t.parquet", overwrite=True)
    return {"t.parquet": (folder / "t.parquet").read_bytes()}


def hats(folder: Path) -> Files:
    """A collection, its catalogue with two partitions, and its list of them."""
    files = {
        "hats/collection.properties": b"obs_collection=x\nhats_primary_table_url=main\n",
        "hats/main/hats.properties": b"obs_collection=x\nhats_nrows=8\nhats_order=0\n",
        "hats/main/partition_info.csv": b"Norder,Npix\n0,1\n0,2\n",
    }
    for pixel in (1, 2):
        path = write(fake_stars(4, (3, 4), start=10 * pixel), folder / f"{pixel}.parquet")
        name = f"hats/main/dataset/Norder=0/Dir=0/Npix={pixel}.parquet"
        files[name] = path.read_bytes()
    return files


def model() -> Files:
    """The model that ships."""
    folder = next(path for path in sorted(SHIPPED.iterdir()) if (path / "model.json").is_file())
    return {f"model/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


def datalink_zip(files: Files) -> Files:
    """An answer of DataLink."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(files.values()):
            archive.writestr(f"XP_CONTINUOUS_RAW-{number}.csv", data)
    return {"answer.zip": out.getvalue()}


def manifest() -> bytes:
    """An entry of a catalogue's manifest."""
    file = {"name": "a", "size": 1, "time": 2, "md5": "00"}
    return json.dumps({
        "input": file, "beside": [], "output": file, "settings": {"model": "x"}, "rows_in": 1,
        "rows_out": 1, "good": 1, "flags": {"BAD_ROW": 1}, "damaged": [[1, 2]], "notes": ["a"],
        "joined": [{"table": "t", "stars": 1}], "first_id": 1, "last_id": 2, "seconds": 0.5,
        "md5_published": True, "processor_seconds": 0.1, "kind": "xplabels catalogue of one file",
    }).encode()  # fmt: skip


# Reading -----------------------------------------------------------------------------------------


def both_ways(path: Path) -> Stars:
    """Damaged rows flagged first, then refused."""
    read(path, "flag")
    return read(path)


def answer(path: Path) -> Stars | None:
    """What an answer of DataLink holds, if anything."""
    files = unpacked(path)
    return read(files, "flag") if files else None


def joined(path: Path) -> object:
    """A table read for its photometry, and for its labels."""
    stars = simulate_stars(4, widths=(3, 3), seed=1)[0]
    ids = np.array(fake_stars(4, (3, 4)).source_id)
    stars = Stars.of(ids, stars.spectra, stars.photometry)
    with contextlib.suppress(XplabelsError):
        join_labels(stars, path)
    return join_photometry(stars, path)


def outcome(path: Path, bad_rows: BadRows = "error", block: int = 2) -> list[str]:
    """Everything a reader says: all arrays, then the complaint if there is one."""
    said: list[str] = []
    try:
        for stars in read_blocks(path, bad_rows, block):
            arrays = [(a.dtype.str, a.shape, (a + 0).tolist()) for a in arrays_of(stars).values()]
            said.append(str((arrays, stars.notes, stars.origin)))
    except XplabelsError as error:
        said.append(str(error))
    return said


def readers_agree(path: Path) -> bool:
    """Whether text is read alike with simdjson and without, in parts and as a whole, as spectra
    and as a table."""
    parts: list[list[str]] = []
    kept = sys.modules.get("simdjson")
    try:
        for module in (kept, None):
            sys.modules["simdjson"] = module  # type: ignore[assignment]
            parts += [outcome(path, "flag"), outcome(path, "error")]
    finally:
        sys.modules["simdjson"] = kept  # type: ignore[assignment]
    if parts[:2] != parts[2:]:
        return False
    try:
        ids, others = read(path).source_id, read_table(path, ())["source_id"]
    except XplabelsError:
        return True  # a table may be read whose spectra are damaged, and the other way around
    # a table keeps rows without an id, which are nobody's
    return bool(np.array_equal(ids, others[others != NOBODY]))


# Mutations ---------------------------------------------------------------------------------------

NUMBERS = (
    b"0", b"-1", b"1", b"2147483648", b"9223372036854775807", b"9223372036854775808",
    b"9999999999", b"1e308", b"1e999", b"-0.0", b"nan", b"inf", b"0x10", b"1_0", b"", b"abc",
    b"1" * 5000, b"null", b"true", b"[]", b"{}", b"1e8", "\u0661".encode(),
)  # fmt: skip
WORDS = (
    b"\0", b"\r", b"\n", b"\r\n", b"\t", b",", b'"', b"'", b'""', b"[", b"]", b"(", b")", b"#",
    b" ", b";", b"|", b"\xff", b"\xef\xbb\xbf", b"\xfe\xff", b"\xed\xa0\x80", b"<", b">", b"&",
    b"/", b"../", b"/etc", b"&lt;", b"=", b"\n\n", b",,,", b"[" * 3000, b"{\"a\":" * 3000,
    b"<RESOURCE>" * 3000, b"x" * 200_000, b"1," * 100_000, b"source_id", b"SOURCE_ID", b"# x\r",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b'href="http://127.0.0.1:9/"', b"%s", b"{0}",
)  # fmt: skip


def mutated(data: bytes, choose: random.Random) -> bytes:
    """``data`` with one mutation."""
    if not data:
        return choose.choice(WORDS)
    at = choose.randrange(len(data))
    end = min(len(data), at + int(10 ** choose.uniform(0, 3)))
    match choose.randrange(13):
        case 0:  # a bit
            return data[:at] + bytes([data[at] ^ 1 << choose.randrange(8)]) + data[at + 1 :]
        case 1:  # a byte
            return data[:at] + bytes([choose.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + data[end:]
        case 3:
            return data[:end] + data[at:end] * choose.choice((1, 1, 2, 50)) + data[end:]
        case 4:
            return data[:at]
        case 5:
            return data[:at] + choose.choice(WORDS) + data[at:]
        case 6:
            return data[:at] + choose.randbytes(end - at) + data[end:]
        case 7:  # a part elsewhere
            to = choose.randrange(len(data))
            return data[:to] + data[at:end] + data[to:]
        case 8:  # line ends
            one, other = choose.sample((b"\n", b"\r", b"\r\n", b"\n\n"), 2)
            return data.replace(one, other)
        case 9:  # a 32-bit number of a binary format
            value = choose.choice((0, 1, -1, 1 << 30, (1 << 31) - 1, choose.randrange(1 << 16)))
            return data[:at] + struct.pack(choose.choice("<>") + "i", value) + data[at + 4 :]
        case 10:  # a card of a FITS header
            return _card(data, choose)
        case _:  # a number in text
            found = list(re.finditer(rb"-?\d[\d.eE+-]*|(?<==)\s*'?\w+'?", data))
            if not found:
                return data[:at]
            span = choose.choice(found).span()
            return data[: span[0]] + choose.choice(NUMBERS) + data[span[1] :]


def _card(data: bytes, choose: random.Random) -> bytes:
    cards = [m.start() for m in re.finditer(rb"[A-Z0-9]{3,8} *= ", data) if m.start() % 80 == 0]
    if not cards:
        return mutated(data, choose)
    at = choose.choice(cards)
    value = choose.choice((*NUMBERS, b"'5D'", b"'9999999999D'", b"'PE(5)'", b"T", b"'(2,2)'", b"'"))
    key = data[at : at + 8] if choose.random() < 0.8 else data[choose.choice(cards) :][:8]
    return data[:at] + (key + b"= " + value[:60].rjust(20)).ljust(80) + data[at + 80 :]


def damaged(target: Target, choose: random.Random) -> Files:
    """The files of a target, one of them with one to four mutations."""
    files = dict(target.files)
    name = choose.choice([name for name in files if re.search(target.mutable, name)])
    data, inside = files[name], choose.random() < 0.7
    if name.endswith(".gz") and inside:
        data = gzip.decompress(data)
    if name.endswith(".zip") and inside:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(archive.namelist()[0])
    if name.endswith(".parquet") and inside:
        data = _schema(data, choose)
    head = len(data)
    if name.endswith("safetensors"):  # nearly all of it is numbers: the header before them
        head = 8 + int.from_bytes(data[:8], "little")
    data, rest = data[:head], data[head:]
    for _ in range(choose.choice((1, 1, 1, 2, 4))):
        data = mutated(data, choose)
    data += rest
    if name.endswith(".gz") and inside:
        data = gzip.compress(data, 1)
    if name.endswith(".zip") and inside:
        data = datalink_zip({"a": data})["answer.zip"]
    files[name] = data
    if name.endswith("safetensors"):  # as a model that someone made like this
        text = json.loads(files["model/model.json"])
        text["files"]["weights.safetensors"] = hashlib.sha256(data).hexdigest()
        files["model/model.json"] = json.dumps(text).encode()
    return files


def _schema(data: bytes, choose: random.Random) -> bytes:
    """A Parquet file whose metadata, or columns' types, are others."""
    found = pq.read_table(io.BytesIO(data))
    if (meta := found.schema.metadata) and choose.random() < 0.7:
        key = choose.choice(list(meta))
        found = found.replace_schema_metadata({**meta, key: mutated(meta[key], choose)})
    else:
        number = choose.randrange(found.num_columns)
        kind = choose.choice((pa.string(), pa.float64(), pa.bool_(), pa.list_(pa.list_(pa.int8()))))
        found = found.set_column(number, found.column_names[number], pa.nulls(len(found), kind))
    out = io.BytesIO()
    pq.write_table(found, out)
    return out.getvalue()


# Running -----------------------------------------------------------------------------------------


def peak() -> int:
    """Most memory that this process took since :func:`forget_peak`, MB."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0


def forget_peak() -> int:
    """Start anew; the memory taken now, MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


@contextlib.contextmanager
def limits(seconds: float, megabytes: int) -> Iterator[None]:
    """Raise :class:`Slow` after ``seconds``, MemoryError beyond so much more than is taken now."""

    def late(*_: object) -> None:
        raise Slow

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGPROF, late)
    most = taken + (megabytes << 20)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor, which others may use, too
    faulthandler.dump_traceback_later(120, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def look(target: Target, path: Path) -> tuple[str, str] | None:
    """What goes wrong with one input: a kind of :data:`KINDS` and words; None if nothing does."""
    before, begun = forget_peak(), time.process_time()
    wrong: tuple[str, str] | None = None
    try:
        with limits(SECONDS, 4 * MEGABYTES):
            try:
                target.read(path)
            except XplabelsError as error:
                if "more memory than there is" in str(error):
                    wrong = ("large", str(error))
                elif not (path.name in str(error) or str(path.parent) in str(error)):
                    wrong = ("foreign", f"does not name the file: {error}")
                elif len(str(error)) > LONGEST_MESSAGE + len(str(path)):
                    wrong = ("foreign", f"a message of {len(str(error))} letters: {error}")
            if target.agree is not None and not target.agree(path):
                wrong = ("disagree", "two ways to read it do not agree")
    except Slow:
        return "slow", f"took {time.process_time() - begun:.0f} s"
    except MemoryError:
        return "large", f"takes more than {4 * MEGABYTES} MB"
    except Exception as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = "" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
        return "foreign", f"{type(error).__name__} at {where}: {str(error)[:300]}"
    if (more := peak() - before) > MEGABYTES:
        return "large", f"took {more} MB"
    return wrong


def fuzz(
    inputs: int, seed: int, seconds: float, output: Path, only: str = ""
) -> tuple[int, Counter[str], list[str]]:
    """How many inputs were read, the counts of :data:`KINDS`, and a line for each that failed."""
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    lines: list[str] = []
    done, end = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        found = targets(Path(folder))
        names = [name for name in found if not only or name in only.split(",")]
        work = Path(folder) / "input"
        for number in range(inputs):
            if time.monotonic() > end:
                break
            name = names[number % len(names)]
            choose = random.Random(f"{seed} {number}")
            files = damaged(found[name], choose)
            shutil.rmtree(work, ignore_errors=True)
            for file, data in files.items():
                (work / file).parent.mkdir(parents=True, exist_ok=True)
                (work / file).write_bytes(data)
            first = next(iter(files)).split("/")[0]
            wrong = look(found[name], work / first)
            done += 1
            if wrong is not None:
                counts[wrong[0]] += 1
                line = f"{wrong[0]}: {name}, input {number} of seed {seed}: {wrong[1]}"
                lines.append(line)
                mark = f"{zlib.crc32(line.encode()):08x}"
                kept = output / f"{name.replace(' ', '_')}_{wrong[0]}_{mark}"
                shutil.copytree(work, kept, dirs_exist_ok=True)
                (kept / "what.txt").write_text(line + "\n")
    return done, counts, lines


def main() -> int:
    """Fuzz as the command line says; status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--inputs", type=int, help="without --seconds, however long it takes")
    parser.add_argument("--seconds", type=float, help="180 without --inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds of input, apart by commas")
    parser.add_argument("--output", type=Path, default=Path("fuzz"), help="for what fails")
    args = parser.parse_args()
    seconds = args.seconds or (np.inf if args.inputs else 180.0)
    done, counts, lines = fuzz(
        args.inputs or sys.maxsize, args.seed, seconds, args.output, args.only
    )
    print("\n".join(line[:400] for line in lines))
    print(f"{done} inputs: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
    return int(any(counts.values()))


if __name__ == "__main__":
    sys.exit(main())
