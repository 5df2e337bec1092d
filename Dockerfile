# docker build --tag latchkey .

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive a build and stay out of the image, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked \
    && install -D --mode=0755 target/release/latchkey /out/latchkey \
    && install --directory --mode=0700 /out/data

# glibc, libgcc and CA certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Latchkey" \
      org.opencontainers.image.description="A self-hosted authentication API in one process" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/latchkey /latchkey
# There is no shell to make a directory with. A named volume takes over the owner and the mode of this one.
COPY --from=build --chown=65532:65532 /out/data /data

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
