# A pooler in a container; docs/docker.md tells how it is used.
FROM python:3.13-slim-bookworm AS build
# Debian keeps one version of a package, so that pinning it would break the next build.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python -m venv /opt/hyperpool \
 && /opt/hyperpool/bin/pip install --no-cache-dir .

FROM python:3.13-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin hyperpool
COPY --from=build /opt/hyperpool /opt/hyperpool
USER 10001
EXPOSE 6432 6480
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/hyperpool/bin/hyperpool"]
CMD ["serve", "/etc/hyperpool/pooler.yaml"]
