"""What src/hubbub never does, read from its source, and what nothing it shows or logs contains."""

from __future__ import annotations

import ast
import logging
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hubbub import Auth, Hub
from hubbub.config import SECRET, Settings
from hubbub.contracts import Handshake
from hubbub.core.credentials import Credential
from hubbub.node.auth import Authenticate
from hubbub.servers.lines import LONGEST, LineFormatter
from hubbub.servers.server import LOGGING
from hubbub.stores.mongo import MongoStore
from hubbub.stores.postgres import PostgresStore
from tests.fakes import make_hub, open_connection

SOURCE = Path(__file__).parents[1] / "src"
SECRETS = re.compile(r"(^|_)(secret|token|ticket|password|signature|digest|mac|nonce)s?$")
RUNS_DATA = {"pickle", "marshal", "shelve", "dill", "yaml", "subprocess", "pty", "xml", "ctypes"}
MAY_RUN = {"cli/nats.py": {"ctypes"}}
"""It asks the kernel to end the server with its parent."""
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
NAMED_ATTRIBUTES = {
    "core/camel.py": "the names of a type's fields",
    "core/limits.py": "the names of a dataclass's fields",
    "core/rates.py": "the names of a dataclass's fields",
    "node/broker.py": "where a part is: a table of ours",
    "node/database.py": "where a part is: a table of ours",
    "node/hub.py": "where a part is: a table of ours",
    "node/relay.py": "where a part is: a table of ours",
    "outbox/tables.py": "where a part is: a table of ours",
}
NO_SECRETS = {"brokers/memory/owner.py": "its token is a number that says whose turn it is"}
PLAIN_IN_LOGS = {
    "an address without the password": [
        "store.place",
        "self.store.place",
        "self.place",
        "self._address.place",
        "self._server.place",
        "self._servers.place",
    ],
    "a folder that the operator chose": ["self._shown"],
    "names that the app gave its functions": ["route.name", "self.name", "name", "what"],
    "made by us, or by another node": [
        "reference",
        "kept",
        "dead",
        "type(question).__name__",
        "type(said).__name__",
        "self.trouble",
        "_how(code)",
        "', '.join(sorted(waiting))",
        "stream.name",
        "message.subject",
    ],
    "our own sentences, which repeat nothing that a client said": [
        "error",
        "error.message",
        "failure",
        "why",
        "verdict.why",
    ],
    "a word of ours, a setting": ["credential.source", "self._url"],
    "escaped, or parsed and so of few letters": [
        "ascii(said) if said else '(none)'",
        "verdict.origin",
        "','.join(every)",
    ],
    "an address": ["peer", "value"],
    "the system's own error": ["context['exception']"],
}
SAFE = {name for names in PLAIN_IN_LOGS.values() for name in names}
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

Finding = tuple[int, str]


def runs_nothing_that_was_sent(path: str, tree: ast.Module) -> Iterator[Finding]:
    """Data is never code. JSON and msgspec types are what we read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if runs := (RUNS_DATA - MAY_RUN.get(path, set())) & {name.partition(".")[0] for name in names}:
                yield node.lineno, f"imports {runs.pop()}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS_TEXT:
            yield node.lineno, f"calls {node.func.id}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.system", "os.popen"):
            yield node.lineno, f"calls {ast.unparse(node)}"


def attributes_have_names(path: str, tree: ast.Module) -> Iterator[Finding]:
    """`getattr` takes a name that stands there, or the file says in NAMED_ATTRIBUTES where it is from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "delattr"):
            literal = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
            if not literal and path not in NAMED_ATTRIBUTES:
                yield node.lineno, ast.unparse(node)


def secrets_are_compared_in_constant_time(path: str, tree: ast.Module) -> Iterator[Finding]:
    """`==` on a secret tells by its time how much was right: use `hmac.compare_digest`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            for side in (node.left, node.comparators[0]):
                name = ast.unparse(side).rpartition(".")[2]
                if isinstance(side, ast.Name | ast.Attribute) and SECRETS.search(name) and path not in NO_SECRETS:
                    yield node.lineno, ast.unparse(node)
                    break


def logs_escape_what_clients_say(path: str, tree: ast.Module) -> Iterator[Finding]:
    """A log's text is a literal, and `%s` is for what cannot come from a client: `%r` escapes and quotes the rest."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOG_METHODS):
            continue
        if ast.unparse(node.func.value) != "logger" or not node.args:
            continue
        text, *values = node.args
        if isinstance(text, ast.BinOp) and isinstance(text.left, ast.Constant):
            continue  # of one text and another, both of ours: node/quotas.py
        if not isinstance(text, ast.Constant):
            yield text.lineno, f"not a literal: {ast.unparse(text)}"
            continue
        kinds = re.findall(r"%[.\d]*([a-z])", str(text.value))
        for kind, value in zip(kinds, values, strict=True):
            if kind == "s" and ast.unparse(value) not in SAFE:
                yield value.lineno, f"%s for {ast.unparse(value)}: use %r, or say in PLAIN_IN_LOGS why it is safe"


Rule = Callable[[str, ast.Module], Iterator[Finding]]
RULES: list[Rule] = [
    runs_nothing_that_was_sent,
    attributes_have_names,
    secrets_are_compared_in_constant_time,
    logs_escape_what_clients_say,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule: Rule) -> None:
    findings = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE / "hubbub").as_posix()
        findings += [f"{name}:{line} {text}" for line, text in rule(name, ast.parse(path.read_text("utf-8")))]
    assert not findings, "\n  ".join([rule.__doc__ or "", *findings])


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (runs_nothing_that_was_sent, "import pickle"),
        (runs_nothing_that_was_sent, "from subprocess import run"),
        (runs_nothing_that_was_sent, "eval(payload)"),
        (runs_nothing_that_was_sent, "os.system(name)"),
        (attributes_have_names, "getattr(hub, message.type)"),
        (secrets_are_compared_in_constant_time, "x = given == self._secret"),
        (secrets_are_compared_in_constant_time, "x = token != wanted"),
        (logs_escape_what_clients_say, "logger.info('%s came', user_id)"),
        (logs_escape_what_clients_say, "logger.info(f'{user_id} came')"),
    ],
)
def test_a_break_is_found(rule: Rule, source: str) -> None:
    assert list(rule("node/x.py", ast.parse(source)))


# --- Lines that cannot be forged -------------------------------------------------------------------------------------


def written(message: str, *args: Any, error: BaseException | None = None) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("hubbub.x", logging.ERROR, "", 0, message, args, info)
    return LineFormatter("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("a\nERROR forged", "ERROR a\n    ERROR forged"),
        ("a\r\nERROR forged", "ERROR a\\r\n    ERROR forged"),
        ("\x1b[2J\x1b]0;title\x07", "ERROR \\x1b[2J\\x1b]0;title\\x07"),
        ("a\x00b\x7fc\x85d", "ERROR a\\x00b\\x7fc\\x85d"),
        ("a\u2028b\u202ec", "ERROR a\\u2028b\\u202ec"),
        ("a\ud800b", "ERROR a\\ud800b"),
        ("tab\tand grüße", "ERROR tab\tand grüße"),
    ],
    ids=["line", "return", "terminal", "control", "separator and direction", "surrogate", "harmless"],
)
def test_only_a_records_first_line_begins_at_the_margin(said: str, expected: str) -> None:
    assert written("%s", said) == expected
    written("%s", said).encode()


def test_an_errors_own_text_forges_no_line() -> None:
    try:
        raise ValueError("bad name: x\n2026-01-01 ERROR hubbub.auth: forged\x1b[31m")
    except ValueError as error:
        lines = written("failed", error=error).splitlines()
    assert lines[0] == "ERROR failed"
    assert all(line.startswith("    ") for line in lines[1:])
    assert not any("\x1b" in line for line in lines)


def test_a_record_is_bounded() -> None:
    text = written("%s", "start" + "x" * 10 * LONGEST + "end")
    assert len(text) < LONGEST + 100
    assert "start" in text
    assert text.endswith("end")
    assert "characters left out]" in text


def test_hubbub_serve_writes_such_lines() -> None:
    assert LOGGING["formatters"]["line"]["()"] == "hubbub.servers.lines.LineFormatter"


async def test_what_a_client_calls_itself_stays_on_one_line(hub_log: pytest.LogCaptureFixture) -> None:
    """A handler that fails logs its connection, whose user may have any printable name, and the type that was sent."""
    hub = make_hub()

    @hub.on("a\nb")
    def fail(conn: Any) -> None:
        raise ValueError("no")

    connection, transport = open_connection(hub)
    connection.receive_text(b'{"type":"a\\nb"}')
    assert [record.getMessage().count("\n") for record in hub_log.records] == [0]
    assert transport is not None


@pytest.fixture
def hub_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hubbub")
    return caplog


# --- What shows itself without its secret ----------------------------------------------------------------------------

HIDDEN = "hunter2" * 5
URLS = {
    "hubbub_inbox_url": f"postgresql://user:{HIDDEN}@db/inbox",
    "hubbub_archive_url": f"mongodb://user:{HIDDEN}@db/archive",
    "postgres_database_url": f"postgresql://user:{HIDDEN}@db/inbox",
    "mongo_db_uri": f"mongodb://user:{HIDDEN}@db/archive",
    "hubbub_outbox_url": f"postgresql://user:{HIDDEN}@db/app",
    "hubbub_broker_url": f"nats://user:{HIDDEN}@host:4222",
    "hubbub_secret": HIDDEN,
    "hubbub_api_key": HIDDEN,
}


def test_every_setting_that_may_hold_a_secret_is_tried() -> None:
    assert set(URLS) == SECRET


@pytest.mark.parametrize(
    "make",
    [
        lambda: Settings.model_construct(None, **URLS),
        lambda: Auth(secret=HIDDEN),
        lambda: Hub(auth=Auth(secret=HIDDEN)),
        lambda: Hub(auth=Auth(secret=HIDDEN)).tickets,
        lambda: Credential(HIDDEN, "cookie"),
        lambda: Authenticate(HIDDEN, "phone"),
        lambda: Handshake({"headers": [(b"authorization", HIDDEN.encode())], "query_string": HIDDEN.encode()}),
        lambda: PostgresStore(URLS["hubbub_inbox_url"]),
        lambda: PostgresStore(URLS["hubbub_inbox_url"]).place,
        lambda: MongoStore(URLS["hubbub_archive_url"]),
        lambda: MongoStore(URLS["hubbub_archive_url"]).place,
    ],
    ids=[
        "settings",
        "auth",
        "hub",
        "tickets",
        "credential",
        "authenticate",
        "handshake",
        "postgres",
        "postgres's place",
        "mongo",
        "mongo's place",
    ],
)
async def test_it_does_not_show_its_secret(make: Callable[[], object]) -> None:
    thing = make()
    assert HIDDEN not in repr(thing) + str(thing)


# --- The threat model is true ----------------------------------------------------------------------------------------

ROOT = SOURCE.parent
MODEL = (ROOT / "THREAT_MODEL.md").read_text("utf-8")
POLICY = (ROOT / "SECURITY.md").read_text("utf-8")


@pytest.mark.parametrize("page", [MODEL, POLICY], ids=["THREAT_MODEL.md", "SECURITY.md"])
def test_every_file_and_test_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`((?:tests|scripts|docs|examples|requirements)/[\w./*-]*)(?:::(\w+))?`", page))
    named |= {(f"src/hubbub/{path}", "") for path in re.findall(r"`((?:core|node|servers)/\w+\.py)`", page)}
    assert named
    for path, test in named:
        files = list(ROOT.glob(path.rstrip("/")))
        assert files, f"there is no {path}"
        assert not test or f"def {test}(" in files[0].read_text("utf-8"), f"{path} has no {test}"


def test_every_threat_has_a_row_that_is_whole() -> None:
    rows = [line.split(" | ") for line in MODEL.splitlines() if line.startswith("| ") and "`tests/" in line]
    assert len(rows) > 25
    for row in rows:
        assert len(row) == 3, row[0]
        assert "`" in row[2], row[0]


# --- The audit of what is locked -------------------------------------------------------------------------------------

AUDIT = runpy.run_path(str(ROOT / "scripts" / "audit.py"))


@pytest.mark.parametrize(
    ("dependencies", "exit", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages audited, 0 with"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}], 1, "a 1 has PYSEC-1"),
        ([{"name": "a", "skip_reason": "?"}], 0, "warning: x.txt: 1 of 1 packages were NOT audited"),
    ],
    ids=["clean", "a finding", "nothing known"],
)
def test_the_audit_says_what_it_knows(
    dependencies: list[Any], exit: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert AUDIT["_judge"](Path("x.txt"), dependencies) == exit
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stderr", "exit", "said"),
    [
        ("Traceback\nrequests.exceptions.ConnectionError: no route", 0, "warning: x.txt was NOT audited"),
        ("ERROR: x.txt has an unhashed requirement", 1, "error: x.txt cannot be audited"),
        ("", 1, "error: x.txt cannot be audited"),
    ],
    ids=["out of reach", "a lock that is wrong", "nothing"],
)
def test_only_a_service_out_of_reach_passes(
    stderr: str, exit: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert AUDIT["_explain"](Path("x.txt"), stderr) == exit
    assert said in capsys.readouterr().out
