"""``xplabels fetch``: what it says, what it writes, and its exit status."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fetch_services import serving
from services.http import FileService
from xplabels.cli import main

QUICK = ("--wait", "0.01", "--attempts", "2", "--timeout", "20")


def test_stars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, output = tmp_path / "ids.csv", tmp_path / "stars"
    with serving(12) as services:
        ids.write_text("source_id\n" + "".join(f"{one}\n" for one in services.made.ids))
        words = [
            "fetch", "--ids", str(ids), "--output", str(output), "--tap", services.tap.address,
            "--datalink", services.datalink.address, "--products", "xp", *QUICK,
        ]  # fmt: skip
        services.datalink.withheld = services.made.spectra.source_id[:2]
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "2 of xp: the archive has its spectrum but leaves it out" in err
        assert "repeat the command" in err
        services.calm()
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "12 stars asked for" in out
        assert f"Stars: {output}" in out
        assert main([*words[:7], "--products", "tmass"]) == 2
        assert "exists already" in capsys.readouterr().err
        for form in ("csv", "txt"):  # nobody's ids: the wrong release, or their last digits lost
            strangers = tmp_path / f"strangers.{form}"
            strangers.write_text("source_id\n4295806720\n4295806848\n")
            words[2], words[4] = str(strangers), str(tmp_path / form)
            assert main(words) == 2
            err = capsys.readouterr().err
            assert f"{strangers}: none of the 2 ids is known to the archive" in err


def test_bulk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"GaiaSource_{n:06d}-{n:06d}.csv.gz": bytes([n]) * 100 for n in range(4)}
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{(2 << 43) + 7}\n")
    with FileService(files, "gdr3/gaia_source") as server:
        words = ["fetch", "--bulk", "gaia_source", "--bulk-url", server.url, *QUICK]
        assert main([*words, "--list", "--files", "*-000001*"]) == 0
        assert capsys.readouterr().out.split()[::2] == ["GaiaSource_000001-000001.csv.gz", "1"]
        assert main([*words, "--ids", str(ids), "--output", str(tmp_path / "bulk")]) == 0
        assert [path.name for path in (tmp_path / "bulk").iterdir()] == [
            "GaiaSource_000002-000002.csv.gz"
        ]
        assert main([*words, "--list", "--files", "nothing"]) == 2
        assert main([*words, "--cone", "1,2,3", "--list"]) == 2
        assert "chosen by --ids or --files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no output is named"),
        (["--output", "x"], "no stars are named"),
        *((["--output", "x", "--cone", cone], "is not a cone") for cone in ("1,2", "a,b,c")),
        *(
            (["--output", "x", "--cone", cone], "is not on the sphere")
            for cone in ("400,0,1", "0,91,1", "0,0,0", "nan,0,1")
        ),
        *(
            (["--output", "x", "--cone", "1,2,3", f"--{option}", value], message)
            for option, value, message in (
                ("products", "wise", "no product 'wise'"),
                ("release", "dr9", "no data release 'dr9'"),
                ("chunk", "6000", "choose 1 to 5000"),
                ("chunk", "0", "choose 1 to 5000"),
                ("tap-chunk", "0", "tap_chunk is 0"),
                ("parallel", "0", "parallel is 0"),
                ("attempts", "0", "0 attempts are too few"),
                ("timeout", "0", "timeout is not positive"),
                ("timeout", "nan", "timeout is not positive"),
                ("wait", "-1", "the first wait is negative"),
            )
        ),
        (["--output", "x", "--ids", "absent.csv"], "does not exist"),
        (["--output", "x", "--list"], "give --bulk"),
    ],
)
def test_impossible_words_are_refused(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyvo" else find(name)
    )
    for what in (["--cone", "1,2,3"], ["--bulk", "xp"]):
        assert main(["fetch", *what, "--output", str(tmp_path / "out")]) == 2
        assert "pip install 'xplabels[archive]'" in capsys.readouterr().err
