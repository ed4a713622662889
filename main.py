"""The functions, which functions-framework finds by name. Logging is configured first, because imports may log."""

import gc
import os

from shared import logs
from shared.settings import from_environment_or_exit

logs.configure(from_environment_or_exit(os.environ))

from functions.buy_orders.buy_order_email import buy_order_email  # noqa: E402
from functions.buy_orders.buy_orders_api import buy_orders_api  # noqa: E402
from functions.buy_orders.email_events import email_events  # noqa: E402
from functions.exports.export_download import export_download  # noqa: E402
from functions.exports.export_history import export_history  # noqa: E402
from functions.exports.export_render import export_render  # noqa: E402
from functions.exports.exports_api import exports_api  # noqa: E402
from functions.imports.import_apply import import_apply  # noqa: E402
from functions.imports.import_batches import import_batches  # noqa: E402
from functions.imports.import_mirror import import_mirror  # noqa: E402
from functions.imports.import_progress import import_progress  # noqa: E402
from functions.imports.import_upload import import_upload  # noqa: E402
from functions.imports.imports_api import imports_api  # noqa: E402
from functions.kafka_bridge import kafka_bridge  # noqa: E402
from functions.sweep import sweep  # noqa: E402
from shared.structs import resolve_types  # noqa: E402

resolve_types()  # before the first thread decodes a struct

gc.freeze()  # imported objects stay; to traverse them at each collection doubled the time to validate a file

__all__ = [
    "buy_order_email",
    "buy_orders_api",
    "email_events",
    "export_download",
    "export_history",
    "export_render",
    "exports_api",
    "import_apply",
    "import_batches",
    "import_mirror",
    "import_progress",
    "import_upload",
    "imports_api",
    "kafka_bridge",
    "sweep",
]
