# docker build --tag latchkey .
# To pull the base images from a mirror: --build-arg BUILD_IMAGE=… --build-arg RUNTIME_IMAGE=…
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# The program carries the list of its crates, in which scanners look up known vulnerabilities.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install cargo-auditable --version 0.7.7 --locked --root /usr/local
WORKDIR /src
COPY . .
# Equal sources in equal images give equal bytes: OpenSSL contains the time of its build, and panics contain paths.
ARG SOURCE_DATE_EPOCH=0
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} LC_ALL=C TZ=UTC \
    RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=/cargo" \
    CFLAGS="-ffile-prefix-map=/usr/local/cargo=/cargo"
# The caches outlive a build and stay out of the image, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo auditable build --release --locked --bin latchkey \
    && install -D --mode=0755 target/release/latchkey /out/latchkey \
    && install -D --directory --mode=0700 /out/root/data

# glibc, libgcc and CA certificates; no shell, no package manager.
FROM ${RUNTIME_IMAGE}
COPY --from=build /out/latchkey /latchkey
# Copied with its parent, because COPY does not keep the mode of the directory that it names. There is no shell to make
# a directory with. A named volume takes over the owner and the mode of this one.
COPY --from=build --chown=65532:65532 /out/root/ /

# Plain DATABASE_URL gives way to LATCHKEY__DATABASE__URL and LATCHKEY__DATABASE__URL_FILE.
ENV DATABASE_URL=sqlite:///data/latchkey.db \
    LATCHKEY__SERVER__LISTEN=0.0.0.0:8080
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["/latchkey", "health"]
ENTRYPOINT ["/latchkey"]

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG RUNTIME_IMAGE
LABEL org.opencontainers.image.title="Latchkey" \
      org.opencontainers.image.description="A self-hosted authentication API in one process" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
