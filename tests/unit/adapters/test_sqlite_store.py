"""The store in SQLite: who may read it, and what survives crashes, damage, other holders and full disks."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meshctl.adapters import sqlite_store
from meshctl.adapters.sqlite_store import MIGRATIONS, SqliteStore
from meshctl.errors import ConflictError, MeshctlError
from meshctl.ports import InstanceRecord, Revision, SourceFile, TopologySource

SOURCE = TopologySource(
    files=(SourceFile(path="mesh.yaml", directory="/work/shop", text="name: shop\n"),), variables={"A": "b"}
)
RECORD = InstanceRecord(id="web-v1-1", restarts=0, phase="ready", fingerprint="a1", exit_code=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".meshctl" / "state.db"


def fill(path: Path) -> None:
    store = SqliteStore(str(path))
    store.commit(topology=SOURCE)
    store.put_instance(RECORD)
    store.close()


def run_sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


def test_what_was_stored_is_there_after_a_restart(path: Path) -> None:
    fill(path)
    store = SqliteStore(str(path))
    assert store.recovered == ""
    assert store.topology() == SOURCE
    assert store.instances() == (RECORD,)
    store.close()


def test_the_database_and_its_side_files_are_0600_in_a_0700_folder(path: Path) -> None:
    store = SqliteStore(str(path))
    store.commit(topology=SOURCE)
    modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()}
    store.close()
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_loosened_permissions_are_mended_on_opening(path: Path) -> None:
    fill(path)
    path.chmod(0o644)
    SqliteStore(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ---------------------------------------------------------------------------------------------- damage


def overwrite_header(path: Path) -> None:
    path.write_bytes(b"no database" * 100)


def overwrite_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def spoil_document(path: Path) -> None:
    run_sql(path, "UPDATE documents SET body = '{\"files\": 1}' WHERE name = 'topology'")


def spoil_instance(path: Path) -> None:
    run_sql(path, "UPDATE instances SET body = 'no JSON'")


def drop_table(path: Path) -> None:
    run_sql(path, "DROP TABLE instances")


@pytest.mark.parametrize(
    "damage", [overwrite_header, overwrite_middle, tear, spoil_document, spoil_instance, drop_table]
)
def test_a_damaged_database_is_moved_aside_and_a_new_one_made(path: Path, damage: Callable[[Path], None]) -> None:
    fill(path)
    damage(path)
    damaged = path.read_bytes()
    store = SqliteStore(str(path))
    aside = path.with_name("state.db.corrupt-1")
    assert store.recovered == f"the state in {path} was damaged: it was moved to {aside}, and begins anew"
    assert aside.read_bytes() == damaged
    assert store.topology() is None
    store.commit(topology=SOURCE)
    store.close()
    store = SqliteStore(str(path))
    assert store.recovered == ""
    assert store.topology() == SOURCE
    store.close()


def test_each_damaged_database_is_kept(path: Path) -> None:
    for _ in range(3):
        fill(path)
        overwrite_header(path)
    SqliteStore(str(path)).close()
    kept = sorted(item.name for item in path.parent.iterdir() if "corrupt" in item.name)
    assert kept == ["state.db.corrupt-1", "state.db.corrupt-2", "state.db.corrupt-3"]


def test_the_log_of_a_damaged_database_is_not_applied_to_the_new_one(path: Path) -> None:
    fill(path)
    # A log is left behind when its writer is killed; a copy of both files is what is then on the disk.
    live = SqliteStore(str(path))
    live.commit(ports={"app/web-v1-1": 4001})
    log = path.with_name("state.db-wal").read_bytes()
    live.close()
    overwrite_header(path)
    path.with_name("state.db-wal").write_bytes(log)
    store = SqliteStore(str(path))
    assert store.recovered
    assert dict(store.ports()) == {}
    store.close()


def test_damage_that_is_met_while_it_is_used_is_said_with_what_to_do(path: Path) -> None:
    store = SqliteStore(str(path))
    store.commit(topology=SOURCE)
    run_sql(path, "UPDATE documents SET body = '[]'")
    with pytest.raises(MeshctlError, match="is damaged") as caught:
        store.topology()
    assert "meshctl up" in caught.value.hint
    store.close()


def test_an_empty_file_is_a_new_database(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    store = SqliteStore(str(path))
    assert (store.recovered, store.topology()) == ("", None)
    store.close()


# ---------------------------------------------------------------------------------------------- other failures


def test_a_database_that_somebody_else_holds_is_a_conflict(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_MS", 10)
    store = SqliteStore(str(path))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConflictError, match="held by another process") as caught:
        store.commit(topology=SOURCE)
    assert str(path) in caught.value.hint
    assert store.topology() is None
    other.execute("ROLLBACK")
    other.close()
    store.commit(topology=SOURCE)
    store.close()


def test_a_full_disk_changes_nothing_and_is_said(path: Path) -> None:
    store = SqliteStore(str(path))
    store.commit(topology=SOURCE)
    # SQLite answers as on a full disk when a database may not grow beyond its pages.
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = TopologySource(files=(SourceFile(path="-", directory="/", text="x" * 100_000),), variables={})
    with pytest.raises(MeshctlError, match="the disk is full") as caught:
        store.commit(ports={"app/web-v1-1": 4001}, topology=large)
    assert "free some space" in caught.value.hint
    assert store.topology() == SOURCE
    assert dict(store.ports()) == {}
    store.close()


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(MeshctlError, match="cannot be used") as caught:
        SqliteStore(str(tmp_path / "state.db"))
    assert str(tmp_path) in caught.value.hint


# ---------------------------------------------------------------------------------------------- versions


def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    fill(path)
    run_sql(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(MeshctlError, match="newer version of meshctl"):
        SqliteStore(str(path))
    assert [item.name for item in path.parent.iterdir() if "corrupt" in item.name] == []


def test_migrations_are_made_once_each_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    made: list[str] = []

    def note(name: str) -> Callable[[sqlite3.Connection], None]:
        def migrate(connection: sqlite3.Connection) -> None:
            made.append(name)
            connection.execute(f"CREATE TABLE {name} (a)")

        return migrate

    monkeypatch.setattr(sqlite_store, "MIGRATIONS", (*MIGRATIONS, note("second"), note("third")))
    for _ in range(2):
        store = SqliteStore(str(path))
        assert store.topology() == SOURCE
        store.close()
    assert made == ["second", "third"]


def test_a_database_from_before_revisions_gets_a_place_for_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "MIGRATIONS", MIGRATIONS[:1])
        patch.setattr(SqliteStore, "_check", lambda *_: None)
        fill(path)
    store = SqliteStore(str(path))
    assert (store.topology(), store.revisions()) == (SOURCE, ())
    store.commit(revision=Revision(number=1, time=1.0, author="ann@up", reason="", state="applied"), content="one")
    assert store.revision_content(1) == "one"
    store.close()


@pytest.mark.parametrize("column", ["head", "content"])
def test_a_revision_that_cannot_be_read_is_damage(path: Path, column: str) -> None:
    store = SqliteStore(str(path))
    store.commit(revision=Revision(number=1, time=1.0, author="ann@up", reason="", state="applied"), content="one")
    store.close()
    run_sql(path, f"UPDATE revisions SET {column} = x'00'")
    store = SqliteStore(str(path))
    assert "was damaged" in store.recovered
    assert store.revisions() == ()
    store.close()


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM documents")
        connection.execute("SELECT nonsense FROM nowhere")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "MIGRATIONS", (*MIGRATIONS, fail))
        with pytest.raises(MeshctlError, match="cannot be used"):
            SqliteStore(str(path))
    store = SqliteStore(str(path))
    assert store.topology() == SOURCE
    store.close()


# ---------------------------------------------------------------------------------------------- crashes

WRITER = """
import sys
from meshctl.adapters.sqlite_store import SqliteStore
from meshctl.ports import InstanceRecord, Revision, SourceFile, TopologySource
store = SqliteStore(sys.argv[1])
number = max((record.restarts for record in store.instances()), default=0)
while True:
    number += 1
    # The same number in every part of one value, and a size that spans several pages.
    text = f"{number} " * (200 + number % 1000)
    files = tuple(SourceFile(path=str(number), directory="/", text=text) for _ in range(3))
    source = TopologySource(files=files, variables={"number": str(number)})
    store.commit(topology=source, ports={"outbound/web": number})
    mark = str(number)
    store.put_instance(InstanceRecord(id="web", restarts=number, phase="ready", fingerprint=mark, exit_code=None))
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_the_last_committed_state_or_one_begun_after_it_never_a_mixture(path: Path) -> None:
    """Invariant 6: after a crash at any instant the store opens, and is at a revision."""
    for round_ in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            committed = 0
            # It goes on meanwhile, so that the kill falls somewhere into the commits after these.
            for _ in range(1 + round_ * 7):
                committed = int(writer.stdout.readline())
            writer.kill()
            committed = max([committed, *(int(line) for line in writer.stdout.read().splitlines()[:-1])])
        store = SqliteStore(str(path))
        assert store.recovered == ""
        source, (record,), ports = store.topology(), store.instances(), dict(store.ports())
        store.close()
        assert source is not None
        number = int(source.variables["number"])
        assert {file.path for file in source.files} == {str(number)}
        assert ports == {"outbound/web": number}
        assert {file.text for file in source.files} == {f"{number} " * (200 + number % 1000)}
        assert record.fingerprint == str(record.restarts)
        # What was committed first cannot be behind what was committed after it.
        assert committed <= record.restarts <= number <= record.restarts + 1
