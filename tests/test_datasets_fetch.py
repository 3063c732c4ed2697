"""`fetch_census`, against a server of our own: no test here reaches the network."""

import gc
import hashlib
import http.server
import importlib.util
import logging
import socket
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from parfit import datasets
from parfit.core.errors import DownloadError, MissingPackageError

ROOT = Path(__file__).resolve().parents[1]
needs_pooch = pytest.mark.skipif(
    importlib.util.find_spec("pooch") is None, reason="pooch, of the extra 'data', is not installed"
)


class Handler(http.server.BaseHTTPRequestHandler):
    body = (ROOT / "data" / "synthetic_counties.csv").read_bytes()

    def do_GET(self):  # http.server's name
        self.server.paths.append(self.path)
        status, sent, promised = {
            "/right": (200, self.body, len(self.body)),
            "/other": (200, b"not the census file", 19),
            "/short": (200, self.body[: len(self.body) // 2], len(self.body)),
            "/unmeasured": (200, self.body[: len(self.body) // 2], None),
            "/hung": (200, b"", len(self.body)),
        }.get(self.path, (404, b"", 0))
        if self.path == "/silent":
            self.server.released.wait(10)  # by then nobody listens
            return
        self.send_response(status)
        if promised is not None:
            self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(sent)
        if self.path == "/hung":
            self.server.released.wait(10)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as live:
        live.daemon_threads = False  # closing waits for answers that are still being given
        live.paths = []
        live.released = threading.Event()
        thread = threading.Thread(target=live.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield live
        finally:
            live.released.set()
            live.shutdown()
            thread.join()


@pytest.fixture
def refused(monkeypatch):
    """An address where nothing listens."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/right"


RIGHT_HASH = hashlib.sha256(Handler.body).hexdigest()


def address(server, name):
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@needs_pooch
@pytest.mark.parametrize("known_hash", [RIGHT_HASH, f"sha256:{RIGHT_HASH.upper()}", None])
def test_fetch_once_then_from_the_cache(server, refused, tmp_path, known_hash, capfd):
    cache = tmp_path / "new" / "cache"
    first = datasets.fetch_census(cache, address(server, "right"), known_hash)
    pd.testing.assert_frame_equal(first, datasets.load_synthetic())
    again = datasets.fetch_census(str(cache), address(server, "right"), known_hash)
    pd.testing.assert_frame_equal(again, first)
    assert server.paths == ["/right"]
    [kept] = files(cache)
    assert kept.read_bytes() == Handler.body
    if known_hash is not None:
        pd.testing.assert_frame_equal(datasets.fetch_census(cache, refused, known_hash), first)
    assert capfd.readouterr() == ("", "")


@needs_pooch
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "not the file asked for"),
        ("short", "broke off"),
        ("unmeasured", "not the file asked for"),
        ("missing", "server refused.*404"),
        ("silent", r"no answer within 0\.2 s"),
        ("hung", r"no answer within 0\.2 s"),
    ],
)
def test_failed_fetch_leaves_nothing(server, tmp_path, name, message, capfd):
    url = address(server, name)
    with pytest.raises(DownloadError, match=message) as caught:
        datasets.fetch_census(tmp_path, url, RIGHT_HASH, timeout_s=0.2)
    for told in (url, str(tmp_path), datasets.CENSUS_VARIABLE):
        assert told in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert files(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@needs_pooch
@pytest.mark.parametrize("name", ["other", "short"])
def test_unchecked_fetch_still_refuses_what_is_no_census_file(server, tmp_path, name):
    with pytest.raises(DownloadError):
        datasets.fetch_census(tmp_path, address(server, name), None)
    assert files(tmp_path) == []


@needs_pooch
@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x.csv", "nonsense", "http://", "http://[", "file:///x.csv", ""])
def test_useless_address(tmp_path, url):
    with pytest.raises(DownloadError, match="address"):
        datasets.fetch_census(tmp_path, url)
    assert files(tmp_path) == []


@needs_pooch
def test_no_network(refused, tmp_path):
    with pytest.raises(DownloadError, match=r"no connection.*reaches the network"):
        datasets.fetch_census(tmp_path, refused, RIGHT_HASH)
    assert files(tmp_path) == []


@needs_pooch
def test_corrupted_cache_is_fetched_again_or_removed(server, refused, tmp_path):
    right = address(server, "right")
    datasets.fetch_census(tmp_path, right, RIGHT_HASH)
    [kept] = files(tmp_path)
    kept.write_bytes(Handler.body[:1000])
    pd.testing.assert_frame_equal(datasets.fetch_census(tmp_path, right, RIGHT_HASH), datasets.load_synthetic())
    assert len(server.paths) == 2
    kept.write_bytes(Handler.body[:1000])
    with pytest.raises(DownloadError):
        datasets.fetch_census(tmp_path, refused, RIGHT_HASH)
    assert files(tmp_path) == []


@needs_pooch
def test_wrong_hash_spares_the_good_file(server, tmp_path):
    right = address(server, "right")
    datasets.fetch_census(tmp_path, right, RIGHT_HASH)
    good = files(tmp_path)
    for wrong in ("0" * 64, "md5:" + "0" * 32, "nosuch:0"):
        with pytest.raises(DownloadError, match="known_hash"):
            datasets.fetch_census(tmp_path, right, wrong)
    assert files(tmp_path) == good


@needs_pooch
def test_cache_that_cannot_be_written(server, tmp_path):
    """A file where the folder should be: that stops root too, which no permission does."""
    (tmp_path / "occupied").touch()
    for cache in (tmp_path / "occupied", tmp_path / "occupied" / "below"):
        with pytest.raises(DownloadError, match=r"cache folder cannot be used.*cache_dir"):
            datasets.fetch_census(cache, address(server, "right"), RIGHT_HASH)
    assert server.paths == []


@needs_pooch
def test_default_cache_is_the_users(server, tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    datasets.fetch_census(url=address(server, "right"), known_hash=RIGHT_HASH)
    assert len(files(tmp_path / "parfit")) == 1


@needs_pooch
def test_poochs_logger_is_as_before(server, tmp_path):
    import pooch

    logger = pooch.get_logger()
    before = (logger.level, list(logger.filters), logging.getLogger().level)
    datasets.fetch_census(tmp_path, address(server, "right"), RIGHT_HASH)
    assert (logger.level, list(logger.filters), logging.getLogger().level) == before


@needs_pooch
@pytest.mark.parametrize("name", ["missing", "short", "hung"])
def test_no_socket_is_left_open_by_a_failure(server, tmp_path, name):
    """Warnings are errors here, and the socket's own would come when it is collected."""
    with pytest.raises(DownloadError):
        datasets.fetch_census(tmp_path, address(server, name), RIGHT_HASH, timeout_s=0.2)
    gc.collect()


def test_pooch_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'parfit\[data\]'"):
        datasets.fetch_census(tmp_path)
