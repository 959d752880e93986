"""What all tests share: a small Nova and a repository; servers, and a place on each."""

from __future__ import annotations

import collections
import functools
import os
import shutil
import signal
import uuid
from pathlib import Path

# Workers share the processors, and OpenMP's threads spin while they wait. Set before numpy and faiss are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest

pytest.register_assert_rewrite("novabackup.testing.contract")

import servers  # noqa: E402
from novabackup import IndexStore, Repository  # noqa: E402

# How fast an example runs says nothing of whether it is right.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

RECOVERY = "recovery time"
"""The property of a test in which it says how long what it played took to recover from."""

# Whoever runs tests in the background, or under nohup, hands ignored signals on, to these processes and their children.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of real index files."""
    import nova  # and with it faiss, which takes a while

    folder = tmp_path / "vector_db"
    nova.build(folder, nova.texts(20))
    return folder


@pytest.fixture
def store(folder: Path) -> IndexStore:
    return IndexStore(folder)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory):
    with servers.moto(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory):
    with servers.rclone(tmp_path_factory.mktemp("rclone")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def radosgw_endpoint(tmp_path_factory):
    if not servers.has_ceph():
        pytest.skip("needs Debian's ceph-mon, ceph-osd, radosgw and ceph-common")
    with servers.radosgw(tmp_path_factory.mktemp("radosgw")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def pushgateway_url(tmp_path_factory):
    if shutil.which("prometheus-pushgateway") is None:
        pytest.skip("needs prometheus-pushgateway")
    with servers.pushgateway(tmp_path_factory.mktemp("pushgateway")) as url:
        yield url


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory):
    with servers.sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def sftp_place(ssh_server, tmp_path):
    """URL and options of an empty place on a server that speaks SFTP; it is the folder ``sftp`` of this test."""
    return ssh_server.url(f"{tmp_path}/sftp"), ssh_server.options


@pytest.fixture(scope="session")
def shared_service_models():
    """Let all S3 clients of this process, and of its forked children, share what each would read from its packages.

    A client reads 2 MB of JSON and a bundle of certificates, which took half of the processor time of a short-lived
    child. The servers here speak HTTP.
    """
    import aiobotocore.httpsession
    import botocore.loaders

    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(botocore.loaders.JSONFileLoader().load_file)
        patch.setattr(botocore.loaders.JSONFileLoader, "load_file", lambda _self, path: load(path))
        patch.setattr(aiobotocore.httpsession, "get_cert_path", lambda _verify: None)
        yield


@pytest.fixture
def clean_aws(monkeypatch, tmp_path, shared_service_models):
    """An environment without the credentials or settings of the user who runs the tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def bucket(moto_endpoint, clean_aws, monkeypatch) -> str:
    """Make an empty ``s3://bucket`` that programs find by the usual environment variables; give the endpoint."""
    import s3fs

    for name, value in (("ENDPOINT_URL", moto_endpoint), ("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret")):
        monkeypatch.setenv(f"AWS_{name}", value)
    fs = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    if fs.exists("bucket"):
        fs.rm("bucket", recursive=True)
    fs.call_s3("create_bucket", Bucket="bucket")
    return moto_endpoint


def _bucket(endpoint):
    """Make a new bucket, and give its URL and the options for it."""
    import s3fs

    options = servers.options(endpoint)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(**options, skip_instance_cache=True).call_s3("create_bucket", Bucket=name)
    return f"s3://{name}/some/prefix", options


@pytest.fixture
def moto_place(moto_endpoint, clean_aws):
    """URL and options of an empty place on a server that honours conditions."""
    return _bucket(moto_endpoint)


@pytest.fixture
def radosgw_place(radosgw_endpoint, clean_aws):
    """URL and options of an empty place on a server that lets one create, and refuses to compare and swap."""
    return _bucket(radosgw_endpoint)


@pytest.fixture
def rclone_place(rclone_endpoint, clean_aws, monkeypatch):
    """URL and options of an empty place on a server that takes no notice of conditions."""
    import aiobotocore.session
    from botocore.handlers import add_expect_header

    made = aiobotocore.session.AioSession.__init__

    def without_expect(self, *arguments, **named):
        # This server answers some requests before it has read them; a client that waits to be asked waits for ever.
        made(self, *arguments, **named)
        self.unregister("before-call.s3", add_expect_header)

    monkeypatch.setattr(aiobotocore.session.AioSession, "__init__", without_expect)
    return _bucket(rclone_endpoint)


LONG = (
    "test_hosts.py::test_ingests_of_8_hosts",
    "test_chaos.py::test_500_ingests",
    "test_every_operation.py::test_a_kill_at_any_operation[S3",
    "test_every_operation.py::test_a_kill_at_any_operation[SFTP",
    "test_every_operation.py::test_an_error_at_any_operation[S3",
    "test_every_operation.py::test_an_error_at_any_operation[SFTP",
    "test_kill.py::test_200_kills",
    "test_machine.py",
    "test_every_operation.py",
    "test_every_tree_operation.py",
    "test_chaos.py",
    "test_chunking.py",
    "test_faiss_files.py::test_a_cut_at_any_byte",
    "test_costs.py",
    "test_disasters.py",
    "test_sftp.py",
    "test_races.py",
    "test_examples.py",
    "test_procedures.py",
    "[docs/cli.md]",
    "test_types.py",
    "test_recovery.py",
    "test_reencrypt.py",
)
"""Tests that take long, the longest first. They start first, while the process that they fork is still small."""


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, name in enumerate(LONG) if name in item.nodeid), len(LONG))


FAST = 3
"""How many tests of each file `--fast` runs."""


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help=f"run only {FAST} tests of each file, and none that is slow")


def pytest_collection_modifyitems(config, items):
    """Start the longest first, and let one worker have the tests of the one server that is heavy."""
    for item in items:
        if "radosgw_endpoint" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("radosgw"))
    items.sort(key=_rank)
    if config.getoption("--fast"):
        chosen = list(_few_of_each_file(items))
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def _few_of_each_file(items):
    taken = collections.Counter()
    for item in items:
        on_server = any(name.endswith(("_endpoint", "ssh_server")) for name in getattr(item, "fixturenames", ()))
        if _rank(item) == len(LONG) and not on_server and taken[item.path] < FAST:
            taken[item.path] += 1
            yield item


def pytest_terminal_summary(terminalreporter):
    """Show how long the recoveries took that were played, and what was not tested here."""
    for reason in sorted({str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ())}):
        terminalreporter.line(f"not tested here: {reason.removeprefix('Skipped: ')}")
    reports = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    times = [(report.nodeid, value) for report in reports for name, value in report.user_properties if name == RECOVERY]
    if times:
        terminalreporter.section("recovery times")
        for nodeid, value in times:
            terminalreporter.line(f"{value:>8}  {nodeid.rpartition('::')[2].removeprefix('test_').replace('_', ' ')}")
