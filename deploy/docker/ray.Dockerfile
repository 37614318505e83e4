# A node of a Ray cluster that agents run on, and an orchestrator that starts them there. From the root of the repository:
#   docker build -f deploy/docker/ray.Dockerfile -t anywire-ray:0.1.0 .
# Engines besides the built-in `synthetic`: openai (vLLM and other servers), llama, models, mcp.
ARG ENGINES="openai"
FROM python:3.12-slim-bookworm AS build
ARG ENGINES
WORKDIR /source
COPY . .
# hadolint ignore=SC2086
RUN engines="" && for each in ${ENGINES}; do engines="${engines} ./plugins/engines/${each}"; done \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . ${engines} \
      ./plugins/schedulers ./plugins/selectors ./plugins/gateways/openai ./plugins/launchers/ray \
      ./plugins/transports/nats ./plugins/transports/zeromq \
      ./plugins/services/alerts ./plugins/services/audit ./plugins/services/background \
      ./plugins/services/cache ./plugins/services/conversations ./plugins/services/deliberation ./plugins/services/nats ./plugins/services/placement \
      ./plugins/services/opentelemetry ./plugins/services/ui

# The version of Ray is that of constraints.txt. Head, workers and orchestrator have the same.
FROM rayproject/ray:2.60.0-py312-cpu
USER 0
ARG ENGINES
# llama.cpp needs a library that the base image may lack.
# hadolint ignore=DL3008
RUN case " ${ENGINES} " in *" llama "*|*" models "*) \
      apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* ;; \
    esac
USER 1000
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    --mount=type=bind,from=build,source=/source/constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir --constraint /constraints.txt uvloop nkeys /wheels/*.whl
ENV RAY_USAGE_STATS_ENABLED=0 \
    ANYWIRE_LOG_FORMAT=json
# The user `ray` of that image, by its number: a pod that must not run as root is not let in with a name.
USER 1000
