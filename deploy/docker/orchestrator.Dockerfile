# An orchestrator with its gateways and services. From the root of the repository:
#   docker build -f deploy/docker/orchestrator.Dockerfile -t anywire-orchestrator:0.1.0 .
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/anywire \
    && /opt/anywire/bin/pip install --no-cache-dir --constraint constraints.txt uvloop \
      . ./plugins/schedulers ./plugins/selectors \
      ./plugins/gateways/openai ./plugins/gateways/grpc \
      ./plugins/transports/dds ./plugins/transports/grpc ./plugins/transports/http \
      "./plugins/transports/nats[nkeys]" ./plugins/transports/zeromq \
      ./plugins/services/alerts ./plugins/services/audit ./plugins/services/background \
      ./plugins/services/cache ./plugins/services/conversations ./plugins/services/deliberation ./plugins/services/nats \
      ./plugins/services/opentelemetry ./plugins/services/placement ./plugins/services/ui

FROM python:3.12-slim-bookworm
COPY --from=build /opt/anywire /opt/anywire
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /state --shell /usr/sbin/nologin anywire \
    && install -d -o anywire -g anywire -m 0700 /state
# Only /state and /tmp are written to: the root file system may be read-only.
ENV PATH=/opt/anywire/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/state \
    PYTHONDONTWRITEBYTECODE=1 \
    ANYWIRE_LOG_FORMAT=json
WORKDIR /state
USER 10001:10001
EXPOSE 8080
# Of a configuration with TLS or another port the health check is one's own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["anywire"]
CMD ["serve", "--config", "/config/orchestrator.yaml"]
