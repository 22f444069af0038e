"""S22: what is secret is nowhere: not in the data directory, the logs, the pages, nor in what `weir journal` shows."""

import time

from harness import get, until

import oracle
from rows import row


@row("S22", "no secret reaches the disk", seconds=120, quick=120)
def canaries(check):
    planted = {}

    def canary(place):
        planted[place] = f"CANARY{len(planted):02d}{check.chance.randrange(1 << 48):012x}"
        return planted[place]

    ledger = oracle.Ledger()
    sink = oracle.Sink(oracle.port(), ledger)
    token, second = canary("bearer token in the configuration"), canary("bearer token in the environment")
    env = {"BACKEND_KEY": canary("environment, used"), "UNRELATED_SECRET": canary("environment, unused"), "SECOND_TOKEN": second}
    subject = check.subject({"a": sink.port}, env=env)
    text = subject.config.read_text()
    text = text.replace("extensions: {health_check", f"extensions: {{bearer_token_auth: {{tokens: [{token}, '${{env:SECOND_TOKEN}}']}}, health_check")
    text = text.replace("extensions: [health_check]", "extensions: [health_check, bearer_token_auth]")
    text = text.replace("max_recv_msg_size_mib: 64}", "max_recv_msg_size_mib: 64, auth: {authenticator: bearer_token_auth}}")
    headers = f"headers: {{x-api-key: '${{env:BACKEND_KEY}}', authorization: 'Basic {canary('header in the configuration')}'}}, "
    text = text.replace("compression: none, ", f"compression: none, {headers}", 1)
    subject.config.write_text(text)
    subject.start()
    # The token that is right, as a credential of each request, and other headers that nobody asked for.
    planted["wrong token"] = "CANARYwrong" + "0" * 12
    metadata = [("authorization", f"Bearer {token}")]
    for name in ("x-api-key", "cookie", "proxy-authorization", "x-unread", "baggage", "x-forwarded-for-token"):
        metadata.append((name, canary(f"header {name} of a request")))
    load = oracle.Load(ledger, subject.grpc, 5000, metadata=tuple(metadata)).start()
    refused = oracle.Client(subject.grpc, metadata=(("authorization", f"Bearer {planted['wrong token']}"),)).send(ledger.body(0))
    check.holds("a wrong token is refused", refused is not None and refused.code().name == "UNAUTHENTICATED", f"{refused}")
    until(lambda: ledger.acknowledged() > 10_000, 20)
    url = canary("query of a request")
    get(f"http://127.0.0.1:{subject.own}/metrics?token={url}")
    get(f"http://127.0.0.1:{subject.health}/?token={url}")
    check.holds("requests with the token are taken", ledger.acknowledged() > 0, f"{load.codes()}")
    pages = {"own page": subject.own_page(), "health page": get(f"http://127.0.0.1:{subject.health}/")[2]}
    # Killed in the middle, stopped in order, and looked at between: snapshots and cursors are written by then.
    subject.kill()
    found = search(check, subject, planted, pages)
    subject.start()
    until(lambda: load.taken_at and time.monotonic() - load.taken_at[-1] < 0.5, 10)
    load.stop()
    check.holds("exit code 0", subject.stop(60)[0] == 0, subject.process.text()[-300:])
    shown = {}
    for command in (["ls"], ["inspect", "traces"], ["verify"], ["dump"]):
        code, shown[f"journal {command[0]}"] = subject.journal(*command)
        if code == 2:
            check.figure(f"skipped: `weir journal {command[0]}` ({shown[f'journal {command[0]}'].splitlines()[:1]})")
    found += search(check, subject, planted, shown)
    files = [path for path in subject.directory.rglob("*") if path.is_file()]
    # That the search would find something: the spans themselves are there.
    there = any(ledger.MAGIC in path.read_bytes() for path in files)
    check.holds("the search finds what is there", there, f"no span in {len(files)} files")
    check.figure(f"{len(planted)} canaries, {len(files)} files of {subject.disk() >> 20} MiB, {len(subject.log()) >> 10} KiB of log: {found} found")
    sink.up()
    subject.start()
    check.delivered(ledger)
    sink.down()


def search(check, subject, planted, texts):
    found = 0
    places = {str(path.relative_to(subject.directory)): path.read_bytes() for path in subject.directory.rglob("*") if path.is_file()}
    places["the log"] = subject.log().encode()
    places.update({name: text.encode() for name, text in texts.items()})
    for name, data in places.items():
        for what, value in planted.items():
            if value.encode() in data:
                found += 1
                check.holds(f"{what} is in {name}", False, value)
    return found
