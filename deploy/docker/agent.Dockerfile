# An agent. From the root of the repository:
#   docker build -f deploy/docker/agent.Dockerfile -t anywire-agent:0.1.0 .
# Engines besides the built-in `synthetic`: openai (vLLM and other servers), llama, models, mcp. llama and models add 100 MB.
ARG ENGINES="openai"
FROM python:3.12-slim-bookworm AS build
ARG ENGINES
WORKDIR /source
COPY . .
# hadolint ignore=SC2086
RUN python -m venv /opt/anywire \
    && engines="" && for each in ${ENGINES}; do engines="${engines} ./plugins/engines/${each}"; done \
    && /opt/anywire/bin/pip install --no-cache-dir --constraint constraints.txt uvloop . ${engines} \
      ./plugins/transports/dds ./plugins/transports/grpc ./plugins/transports/http \
      "./plugins/transports/nats[nkeys]" ./plugins/transports/zeromq

FROM python:3.12-slim-bookworm
ARG ENGINES
# llama.cpp needs a library that the base image lacks.
# hadolint ignore=DL3008
RUN case " ${ENGINES} " in *" llama "*|*" models "*) \
      apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* ;; \
    esac
COPY --from=build /opt/anywire /opt/anywire
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /state --shell /usr/sbin/nologin anywire \
    && install -d -o anywire -g anywire -m 0700 /state
# Only /state and /tmp are written to: the root file system may be read-only.
ENV PATH=/opt/anywire/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/state \
    PYTHONDONTWRITEBYTECODE=1 \
    ANYWIRE_LOG_FORMAT=json \
    ANYWIRE_ALIVE_FILE=/tmp/alive
WORKDIR /state
USER 10001:10001
# The agent sets the time of this file every 5 seconds while its event loop runs.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["sh", "-c", "test -n \"$(find /tmp/alive -newermt '-20 seconds')\""]
ENTRYPOINT ["anywire"]
CMD ["agent", "--config", "/config/agent.yaml"]
