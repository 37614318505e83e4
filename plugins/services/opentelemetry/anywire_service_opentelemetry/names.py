"""Names of OpenTelemetry's semantic conventions, in the version that `SCHEMA` names, and our own beside them.

Those of generative AI are the ones of that version too, the last one before they moved to a repository of their own.
"""

from __future__ import annotations

SCHEMA_VERSION = "1.44.0"
SCHEMA = f"https://opentelemetry.io/schemas/{SCHEMA_VERSION}"

ERROR_TYPE = "error.type"
HOST_NAME = "host.name"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
PROCESS_ID = "process.pid"
SERVICE_INSTANCE = "service.instance.id"
SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"

CONVERSATION = "gen_ai.conversation.id"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_MESSAGES = "gen_ai.input.messages"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OPERATION_NAME = "gen_ai.operation.name"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"

AGENT = "anywire.agent.id"
ATTEMPT = "anywire.attempt"
ATTEMPTS = "anywire.attempts"
CANDIDATES = "anywire.candidates"
CLOCK = "anywire.clock"
LINK = "anywire.link"
ORIGIN = "anywire.error.origin"
PARENT = "anywire.parent"
PRIORITY = "anywire.priority"
REASON = "anywire.reason"
SELECTOR = "anywire.selector"
TASK = "anywire.task.id"
TENANT = "anywire.tenant"
TRANSPORT = "anywire.transport"
