# The image: one static binary, its settings and the list of its parts. No shell, no library, nothing that is written to.
#
#   docker build -t kinglet .
#   docker run --rm --read-only -p 8000:8000 -v "$PWD/models:/models:ro" kinglet
#
# MADE=built takes the folder that deploy/image/make filled, target/image, in place of building in a container.
ARG MADE=build

FROM rust:1.95.0-bookworm AS build
# That of rust-toolchain.toml, without the components that only tests need.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /kinglet
COPY . .
RUN deploy/image/make /made

FROM scratch AS built
COPY target/image/ /made/

FROM ${MADE} AS made

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Kinglet" \
    org.opencontainers.image.description="Serves neural networks on CPUs for the fewest joules" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=made /made/ /
ENV KINGLET_CONFIG=/etc/kinglet/config.toml
USER 65532:65532
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/kinglet", "healthcheck"]
ENTRYPOINT ["/kinglet"]
CMD ["serve"]
