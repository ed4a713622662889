"""Defines what runs on this machine, in which order, and with which environment.

base       postgres, storage, kafka, mail; each of the first three only where the environment names no such server
function   one process per function of infra/functions.yaml
edge       brings in work: pubsub (only where the environment names no such server), storage_events, scheduler, gateway
"""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from infra.local import contents, functions, identity, mail_catcher, ports, postgres
from infra.local.functions import Function
from infra.local.ports import HOST
from infra.local.state import State
from infra.local.supervisor import Service, StartFailed, Supervisor

PROJECT = "local"
BUCKET = "imports-and-exports"
API_PORT = 8080
MAX_STARTS = 3  # each with other ports instead of those that another program has taken
OWN_SERVERS = ("postgres", "storage", "pubsub", "mail", "gateway")  # the broker chooses its own port
DATABASE_VARIABLES = {name: f"{name.upper()}_DATABASE_URL" for name in postgres.DATABASES}
# Where one of these is set, the stack uses the server that it names and does not start its own.
FOREIGN_VARIABLES = (
    *DATABASE_VARIABLES.values(),
    "STORAGE_EMULATOR_HOST",
    "KAFKA_BOOTSTRAP_SERVERS",
    "PUBSUB_EMULATOR_HOST",
)
TENANTS = ("webshop_uuid", "user_uuid", "other_webshop_uuid", "other_user_uuid", "buy_order_uuid")


@dataclass
class Stack:
    """One stack: its servers, functions and settings, and the supervisor of its processes."""

    state: State
    products: int  # number of products to seed in the first webshop
    foreign: dict[str, str] = field(init=False)  # addresses of servers that the caller's environment names, by variable
    ports: dict[str, int] = field(init=False)  # of OWN_SERVERS
    environment: dict[str, str] = field(init=False)  # environment variables of the functions
    functions: list[Function] = field(init=False)
    addresses: dict[str, str] = field(init=False, default_factory=dict)  # host:port by function
    tenants: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Starts nothing yet."""
        self.supervisor = Supervisor(self.state)
        self.foreign = {name: os.environ[name] for name in FOREIGN_VARIABLES if os.environ.get(name)}
        self.ports = dict(zip(OWN_SERVERS, ports.free_ports(len(OWN_SERVERS)), strict=True))
        if ports.claim(API_PORT):
            self.ports["gateway"] = API_PORT

    def up(self) -> None:
        """Starts everything and returns when it is ready. Raises StartFailed; `down` stops what has started by then."""
        for starts_left in reversed(range(MAX_STARTS)):
            try:
                self.start()
            except StartFailed:
                self.supervisor.stop()
                taken = self.leave_taken_ports()
                if not taken or not starts_left:
                    raise
                print(f"Another program has taken the port of {', '.join(taken)}. Starting again …", flush=True)
            else:
                return

    def start(self) -> None:
        """Starts everything on the ports of this stack and returns when it is ready. Raises StartFailed."""
        self.environment = self.settings() | self.own_servers() | self.foreign
        os.environ.update(self.environment)
        self.supervisor.prepare()
        if self.own_databases():
            postgres.initialize(self.state.path("postgres"))
        self.functions = self.supervisor.call(functions.discover)
        self.addresses = self.function_addresses()
        self.supervisor.start(*self.servers())
        self.supervisor.wait_ready()
        self.create_what_functions_connect_to()
        self.supervisor.start(*self.function_services())
        self.tenants = asdict(self.supervisor.call(contents.fill_databases, self.database_urls(), self.products))
        self.supervisor.start(*self.edge())
        self.supervisor.wait_ready()
        self.save()

    def watch(self) -> NoReturn:
        """Restarts processes that die, until the handler of a signal raises."""
        self.supervisor.watch()

    def down(self) -> None:
        """Stops every process."""
        self.state.delete()
        self.supervisor.stop()

    def settings(self) -> dict[str, str]:
        """Returns the functions' settings, except for the addresses of servers."""
        return {
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "BUCKET": BUCKET,
            "LOG_FORMAT": "text",
            "SIGNED_URLS": "off",  # the local stack has no key that signs URLs
            "TOKEN_ISSUER": self.api_url(),
            "TOKEN_AUDIENCE": identity.AUDIENCE,
            "TOKEN_JWKS_URL": f"http://{HOST}:{self.ports['gateway']}{identity.KEY_SET_PATH}",
            "SENDGRID_HOST": f"http://{HOST}:{self.ports['mail']}",
            "SENDGRID_API_KEY": mail_catcher.API_KEY,
            "SENDGRID_WEBHOOK_PUBLIC_KEY": mail_catcher.public_key(self.state.directory),
            "MAIL_FROM_ADDRESS": mail_catcher.SENDER,
        }

    def own_servers(self) -> dict[str, str]:
        """Returns the addresses of the stack's own servers, by the variables that can name other servers."""
        urls = {name: postgres.url(self.ports["postgres"], name) for name in DATABASE_VARIABLES}
        return {
            **{variable: urls[name] for name, variable in DATABASE_VARIABLES.items()},
            "STORAGE_EMULATOR_HOST": f"http://{HOST}:{self.ports['storage']}",
            "PUBSUB_EMULATOR_HOST": f"{HOST}:{self.ports['pubsub']}",
        }

    def own_databases(self) -> tuple[str, ...]:
        """Returns the names of the databases in the stack's own PostgreSQL."""
        return tuple(name for name, variable in DATABASE_VARIABLES.items() if variable not in self.foreign)

    def database_urls(self) -> dict[str, str]:
        """Returns the libpq URL of each database."""
        return {name: self.environment[variable] for name, variable in DATABASE_VARIABLES.items()}

    def api_url(self) -> str:
        """Returns the address of the gateway, through which everything is reached."""
        return f"http://localhost:{self.ports['gateway']}"

    def leave_taken_ports(self) -> list[str]:
        """Chooses other ports for the servers whose ports another program listens on.

        Returns their names, and those of functions whose ports are taken: these have other ports at every start.
        """
        servers = [name for name, port in self.ports.items() if not ports.is_free(port)]
        self.ports.update(zip(servers, ports.free_ports(len(servers)), strict=True))
        return servers + [name for name in self.addresses if not ports.is_free(self.function_port(name))]

    def function_addresses(self) -> dict[str, str]:
        """Returns a host:port for each function that is a server."""
        names = [function.name for function in self.functions if function.kind != "worker"]
        return {name: f"{HOST}:{port}" for name, port in zip(names, ports.free_ports(len(names)), strict=True)}

    def topics(self) -> list[str]:
        """Returns the topics of the functions."""
        return sorted({function.topic for function in self.functions if function.topic})

    def names_of(self, kind: str) -> list[str]:
        """Returns the names of the functions of one kind."""
        return [function.name for function in self.functions if function.kind == kind]

    def servers(self) -> list[Service]:
        """Returns the servers that the functions need, except for those that the caller's environment names."""
        data = self.state.path("postgres")
        threads = {function.name: function.threads for function in self.functions}
        webhook = f"http://{HOST}:{self.ports['gateway']}/email-events"
        mail = (self.ports["mail"], self.state.path("mail"), self.state.directory, webhook)
        services = [Service("mail", "infra.local.mail_catcher", mail)]
        if self.own_databases():
            services.append(
                Service(
                    "postgres",
                    "infra.local.postgres",
                    (data, self.ports["postgres"]),
                    stop_signal=signal.SIGINT,  # fast shutdown; at SIGTERM it would wait until the last client leaves
                    ready_pid=lambda: postgres.ready_pid(data),
                )
            )
        if "STORAGE_EMULATOR_HOST" not in self.foreign:
            storage = (self.state.path("storage"), self.ports["storage"], BUCKET)
            services.append(Service("storage", "infra.local.storage_server", storage))
        if "KAFKA_BOOTSTRAP_SERVERS" not in self.foreign:
            services.append(Service("kafka", "infra.local.broker", (self.topics(),), after_restart=self.follow_broker))
        if "PUBSUB_EMULATOR_HOST" not in self.foreign:
            pubsub = (self.state.directory, self.ports["pubsub"], threads)
            services.append(Service("pubsub", "infra.local.pubsub_server", pubsub, layer="edge"))
        return services

    def function_services(self) -> list[Service]:
        """Returns one process per function."""
        services = []
        for function in self.functions:
            if function.kind == "worker":
                services.append(Service(function.name, "infra.local.worker_process", (function,), layer="function"))
            else:
                arguments = (function, self.function_port(function.name))
                services.append(Service(function.name, "infra.local.function_process", arguments, layer="function"))
        return services

    def edge(self) -> list[Service]:
        """Returns the processes that bring work to the functions."""
        services = [
            Service(
                f"storage_events_{name}" if index else "storage_events",
                "infra.local.storage_events",
                (
                    self.environment["STORAGE_EMULATOR_HOST"],
                    BUCKET,
                    self.url(name),
                    self.state.path(f"{name}.delivered"),
                ),
                layer="edge",
            )
            for index, name in enumerate(self.names_of("storage"))
        ]
        scheduled_urls = tuple(self.url(name) for name in self.names_of("schedule"))
        functions_with_routes = [function for function in self.functions if function.routes]
        gateway = (self.ports["gateway"], functions_with_routes, self.addresses, self.state.directory)
        return [
            *services,
            Service("scheduler", "infra.local.scheduler", (scheduled_urls,), layer="edge"),
            Service("gateway", "infra.local.gateway", gateway, layer="edge"),
        ]

    def function_port(self, function: str) -> int:
        """Returns the port that a function listens on."""
        return int(self.addresses[function].rpartition(":")[2])

    def url(self, function: str) -> str:
        """Returns the address at which a function takes events."""
        return f"http://{self.addresses[function]}/"

    def create_what_functions_connect_to(self) -> None:
        """Creates databases, topics, subscriptions and the bucket where they do not exist yet."""
        if self.own_databases():
            self.supervisor.call(postgres.create_databases, self.ports["postgres"], self.own_databases())
        if "KAFKA_BOOTSTRAP_SERVERS" in self.foreign:
            self.supervisor.call(contents.create_kafka_topics, self.foreign["KAFKA_BOOTSTRAP_SERVERS"], self.topics())
        else:
            self.set_broker_address()
        if "STORAGE_EMULATOR_HOST" in self.foreign:
            self.supervisor.call(contents.create_bucket, PROJECT, BUCKET)
        endpoints = {
            function.name: (function.topic, f"{self.url(function.name)}projects/{PROJECT}/topics/{function.topic}")
            for function in self.functions
            if function.topic
        }
        self.supervisor.call(contents.create_subscriptions, PROJECT, endpoints)

    def set_broker_address(self) -> None:
        """Puts the address that the broker announced into the functions' environment."""
        if broker := self.state.announced("kafka"):
            self.environment["KAFKA_BOOTSTRAP_SERVERS"] = os.environ["KAFKA_BOOTSTRAP_SERVERS"] = broker["address"]

    def follow_broker(self) -> None:
        """Restarts the functions after a restart of the broker, because the broker then has a new address."""
        self.set_broker_address()
        self.supervisor.restart(*self.function_services())
        self.save()

    def save(self) -> None:
        """Saves what the other commands need."""
        environment = {
            "API_URL": self.api_url(),
            "GRPC_TARGET": "",  # there is no gRPC server yet
            **{variable: self.environment[variable] for variable in DATABASE_VARIABLES.values()},
            **{name: self.environment[name] for name in ("STORAGE_EMULATOR_HOST", "BUCKET")},
            **{name: self.environment[name] for name in ("KAFKA_BOOTSTRAP_SERVERS", "PUBSUB_EMULATOR_HOST")},
            "MAIL_DIR": str(self.state.path("mail")),
            **{name.upper(): str(self.tenants[name]) for name in TENANTS},
        }
        stack: dict[str, Any] = {
            "environment": environment,
            "processes": self.supervisor.names(),
            "functions": [
                asdict(function) | {"url": self.url(function.name)}
                for function in self.functions
                if function.name in self.addresses
            ],
        }
        self.state.save(stack)
